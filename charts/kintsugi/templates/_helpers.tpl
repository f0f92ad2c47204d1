{{/* Names and labels that all templates share. */}}

{{- define "kintsugi.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end }}

{{- define "kintsugi.selector" -}}
app.kubernetes.io/name: kintsugi
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kintsugi.labels" -}}
{{ include "kintsugi.selector" . }}
app.kubernetes.io/part-of: kintsugi
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "kintsugi.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* 0 for Observe to 4 for AutoMediumRisk. */}}
{{- define "kintsugi.ceilingRank" -}}
{{ get (dict "Observe" 0 "Recommend" 1 "Approve" 2 "AutoLowRisk" 3 "AutoMediumRisk" 4) .Values.ceiling.mode }}
{{- end }}

{{- define "kintsugi.config" -}}
ceiling:
  {{- toYaml .Values.ceiling | nindent 2 }}
paused: {{ .Values.paused }}
namespaces:
  {{- toYaml .Values.rbac.namespaces | nindent 2 }}
{{- with .Values.experience }}
{{- if .enabled }}
experience:
  {{- if not .urlSecret.name }}
  url: {{ .url | quote }}
  {{- end }}
  perClass: {{ .perClass }}
{{- end }}
{{- end }}
models:
  detector: {{ .Values.models.detector }}
  {{- if .Values.models.bundle }}
  bundle: /etc/kintsugi-models
  {{- end }}
listen: 0.0.0.0:8080
{{- end }}

{{/* The claim that holds /var/lib/kintsugi; empty for an emptyDir. */}}
{{- define "kintsugi.experienceClaim" -}}
{{- with .Values.experience.persistence }}
{{- if .enabled }}{{ .existingClaim | default (printf "%s-experience" $.Release.Name) }}{{ end }}
{{- end }}
{{- end }}

{{/* Nothing that a container could use to become more than it is. */}}
{{- define "kintsugi.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "kintsugi.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Annotations by which many Prometheus installations find a pod. */}}
{{- define "kintsugi.scraped" -}}
{{- if .root.Values.prometheusAnnotations }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
prometheus.io/path: /metrics
{{- end }}
{{- end }}
