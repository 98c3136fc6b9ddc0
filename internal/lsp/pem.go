package lsp

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/internal/certs"
	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/schema"
)

// Limits of the files offered for import.
const (
	maxCertFiles = 20
	maxCertSize  = 256 << 10
)

// imports returns the actions that add the certificates of files next to the policy. In the
// section of certificates it adds them there; in a trust store it adds them to that store
// as well.
func (s *server) imports(snap *snapshot, at Position) (list []codeAction) {
	d := snap.scan().doc
	p := snap.scan().at(snap.text.offset(at))
	if len(p.path) == 0 || !filepath.IsAbs(snap.file) || schema.HasErrors(d.Syntax) {
		return nil
	}
	var o certs.ImportOptions
	title := ""
	switch section := schema.Section(p.path[0].Key); {
	case section == schema.Certs:
	case section == schema.TrustStores && p.def != nil:
		o.Store = p.def.Name
		title = " into trust store " + schema.QuoteName(o.Store)
	default:
		return nil
	}
	dir := filepath.Dir(snap.file)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > maxRelatives {
		return nil
	}
	for _, e := range entries {
		ext := strings.ToLower(filepath.Ext(e.Name()))
		if !slices.Contains([]string{".pem", ".crt", ".cer", ".der"}, ext) || len(list) == maxCertFiles || !e.Type().IsRegular() {
			continue
		}
		if after := withCertificates(d, filepath.Join(dir, e.Name()), o); after != "" {
			list = append(list, codeAction{Title: "Import " + e.Name() + title, Kind: kindImport, Edit: snap.edit(snap.difference(after))})
		}
	}
	return list
}

// withCertificates returns the policy with the certificates of a file. It returns "" if the policy
// has them all, or the file contains anything else.
func withCertificates(d *schema.Document, file string, o certs.ImportOptions) string {
	text, err := readfile.Regular(file, maxCertSize)
	if err != nil {
		return ""
	}
	all, err := certs.Read(text)
	if err != nil {
		return ""
	}
	var named []certs.NamedCert
	for _, c := range all {
		named = append(named, certs.NamedCert{Name: certs.NameFor(c), Cert: c})
	}
	result, _, _, err := certs.Import(d, named, o)
	if err != nil || result.String() == d.String() {
		return ""
	}
	return result.String()
}
