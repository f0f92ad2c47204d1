//go:build tools

// Package tools names the programs that are built from this module, so that go.mod pins them.
package tools

import (
	_ "sigs.k8s.io/kwok/cmd/kwok"
	_ "sigs.k8s.io/kwok/cmd/kwokctl"
)
