{{/*
What the admission policies share. Every field that the API server would fill in is written out, so that what is
installed equals what is rendered, and the operator can compare the two (operator/kintsugi/shell/gate.py).
*/}}

{{/* The operator's user name, as the API server sees it. */}}
{{- define "kintsugi.admission.operator" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "kintsugi.serviceAccountName" . }}
{{- end }}

{{/* The rest of matchConstraints after resourceRules. */}}
{{- define "kintsugi.admission.everywhere" -}}
matchPolicy: Equivalent
namespaceSelector: {}
objectSelector: {}
{{- end }}

{{/*
Variables of every validating policy. `.keys` are the annotations after "kintsugi.dev/" that mean something on the kind,
a comma between them; `ours` are those that this request adds, changes or removes.
`foreign` is not computed for the status, whose metadata the API server ignores: an editor with ten thousand annotations
must not be able to exhaust the CEL budget of the operator's writes.
Read with care: request.subResource is absent, not empty, for the object itself; object is null on DELETE, oldObject on
CREATE; the API server takes annotation keys in any case.
*/}}
{{- define "kintsugi.admission.variables" -}}
- name: me
  expression: request.userInfo.username
- name: operator
  expression: variables.me == {{ include "kintsugi.admission.operator" .root | squote }}
- name: sub
  expression: "has(request.subResource) ? request.subResource : ''"
- name: none
  expression: "{'': ''}"
- name: new
  expression: "object != null && has(object.metadata.annotations) ? object.metadata.annotations : variables.none"
- name: old
  expression: "oldObject != null && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : variables.none"
- name: keys
  expression: "[{{ range $i, $key := splitList "," .keys }}{{ if $i }}, {{ end }}'kintsugi.dev/{{ $key }}'{{ end }}]"
- name: ours
  expression: >-
    variables.keys.filter(k, request.operation != 'DELETE' &&
    ((k in variables.new) != (k in variables.old) || (k in variables.new && variables.new[k] != variables.old[k])))
- name: foreign
  expression: >-
    request.operation == 'DELETE' || variables.sub != '' ? [] : variables.new.filter(k, k.lowerAscii().startsWith('kintsugi.dev/') &&
    !(k in variables.keys) && !(k in variables.old && variables.old[k] == variables.new[k]))
- name: may
  expression: "authorizer.group('kintsugi.dev').resource('{{ .plural }}')"
- name: meta
  expression: "object != null ? object.metadata : oldObject.metadata"
- name: going
  expression: "namespaceObject != null && has(namespaceObject.metadata.deletionTimestamp)"
{{- end }}

{{/* Validations of every policy: only the operator writes the status, and nothing else; no annotation without a meaning. */}}
{{- define "kintsugi.admission.common" -}}
- expression: variables.sub != 'status' || variables.operator
  messageExpression: >-
    'only the operator writes the status of a {{ .kind }}; ' + variables.me + ' can change the object itself'
  reason: Forbidden
- expression: size(variables.ours) == 0 || variables.sub == ''
  message: annotate the {{ .kind }} itself, not its status
  reason: Forbidden
- expression: size(variables.ours) == 0 || !variables.operator
  message: the operator approves, rejects, pauses, acknowledges and labels nothing; a person does
  reason: Forbidden
- expression: size(variables.foreign) == 0
  messageExpression: >-
    variables.foreign.join(', ') + ' means nothing on a {{ .kind }}; the annotations that do: ' + variables.keys.join(', ')
  reason: Forbidden
{{- end }}

{{/*
Validations of keys that can be set, changed and withdrawn by whoever has the right to: the stamp moves with its key,
names the caller, and goes with the key. `.stamps` is a CEL map from key to stamp.
*/}}
{{- define "kintsugi.admission.bound" -}}
- expression: "variables.stamps.all(k, !(variables.stamps[k] in variables.ours) || k in variables.ours)"
  messageExpression: >-
    'stamps are the API server\'s (' + variables.stamps.map(k, variables.stamps[k]).join(', ') +
    '); set or remove ' + variables.stamps.map(k, k).join(', ') + ' instead'
  reason: Forbidden
- expression: >-
    variables.stamps.all(k, !(k in variables.ours) || (k in variables.new
    ? variables.stamps[k] in variables.new && variables.new[variables.stamps[k]] == variables.me
    : !(variables.stamps[k] in variables.new)))
  messageExpression: >-
    'say who you are: ' + variables.stamps.map(k, k).filter(k, k in variables.ours).map(k, k in variables.new
    ? variables.stamps[k] + '=' + variables.me : variables.stamps[k] + '- (removed with its key)').join(' ')
  reason: Forbidden
{{- end }}

{{/* One validation: whoever sets, changes or withdraws `.key` may `update` the virtual subresource of that name. */}}
{{- define "kintsugi.admission.right" -}}
- expression: >-
    !('kintsugi.dev/{{ .key }}' in variables.ours) ||
    variables.may.subresource('{{ .key }}').namespace(variables.meta.namespace).name(variables.meta.name).check('update').allowed()
  messageExpression: >-
    variables.me + ' may not {{ .key }} ' + variables.meta.name + ' in ' + variables.meta.namespace +
    ', nor take it back (ask for \'update\' on {{ .plural }}/{{ .key }})'
  reason: Forbidden
{{- end }}

{{/* Deleting a paused object would unpause it once it is made again. */}}
{{- define "kintsugi.admission.deletePaused" -}}
- expression: >-
    request.operation != 'DELETE' || !('kintsugi.dev/pause' in variables.old) || variables.going ||
    variables.may.subresource('pause').namespace(variables.meta.namespace).name(variables.meta.name).check('update').allowed()
  messageExpression: >-
    variables.meta.name + ' is paused, and deleting it takes the pause back, which ' + variables.me +
    ' may not (ask for \'update\' on {{ .plural }}/pause)'
  reason: Forbidden
{{- end }}
