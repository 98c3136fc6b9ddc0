// Package proxyconfig reads configurations of sspolicy proxy.
package proxyconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	_ "embed"

	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/secure-streams/sspolicy/internal/config"
	"github.com/secure-streams/sspolicy/proxy"
	"github.com/secure-streams/sspolicy/schema"
)

// JSONSchema is the JSON Schema (draft 2020-12) of a configuration.
//
//go:embed config.schema.json
var JSONSchema string

var compiled = sync.OnceValue(func() *jsonschema.Schema { return jsonschema.MustCompileString("config.schema.json", JSONSchema) })

// A Config is a configuration. Paths are relative to its folder.
type Config struct {
	Listen      []Listener `json:"listen"`
	Credentials string     `json:"credentials"`
	Cookies     string     `json:"cookies"`
	Metrics     string     `json:"metrics"`
	Drain       Duration   `json:"drain"`
	MaxLinks    int        `json:"max_links"`
	Roles       []Role     `json:"roles"`
}

// A Listener is where a proxy listens.
type Listener struct {
	Address     string `json:"address"`
	Mode        string `json:"mode"`
	Owner       string `json:"owner"`
	Group       string `json:"group"`
	Public      bool   `json:"public"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	ClientCA    string `json:"client_ca"`
}

// A Role is a [proxy.Role] with names of users and groups.
type Role struct {
	Name         string   `json:"name"`
	Users        []string `json:"users"`
	Groups       []string `json:"groups"`
	Certificates []string `json:"certificates"`
	StreamTypes  []string `json:"streamtypes"`
	MaxLinks     int      `json:"max_links"`
	MaxBuffered  int64    `json:"max_buffered"`
	MaxRate      int64    `json:"max_rate"`
	HideErrors   bool     `json:"hide_errors"`

	uids, gids []uint32
}

// A Duration is a time such as "10s".
type Duration time.Duration

// UnmarshalText parses a Duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Changed returns the names of the settings that differ from those of other, other than
// the roles.
func (c *Config) Changed(other *Config) (names []string) {
	a, b := reflect.ValueOf(c).Elem(), reflect.ValueOf(other).Elem()
	for i, f := range reflect.VisibleFields(a.Type()) {
		if f.Name != "Roles" && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			names = append(names, f.Tag.Get("json"))
		}
	}
	return names
}

// ProxyRoles returns the roles; nil if the configuration has none.
func (c *Config) ProxyRoles() []*proxy.Role {
	if c == nil || c.Roles == nil {
		return nil
	}
	roles := []*proxy.Role{}
	for _, r := range c.Roles {
		roles = append(roles, &proxy.Role{
			Name: r.Name, Users: r.uids, Groups: r.gids, Certificates: r.Certificates, StreamTypes: r.StreamTypes,
			MaxLinks: r.MaxLinks, MaxBuffered: r.MaxBuffered, MaxRate: r.MaxRate, HideErrors: r.HideErrors,
		})
	}
	return roles
}

// Permissions returns the mode of the file of a unix socket, and its owner and group, -1
// for those that are not set.
func (l *Listener) Permissions() (mode fs.FileMode, set bool, uid, gid int) {
	n, err := strconv.ParseUint(l.Mode, 8, 32)
	uid, gid = -1, -1
	if id, err := lookupUser(l.Owner); err == nil {
		uid = int(id)
	}
	if id, err := lookupGroup(l.Group); err == nil {
		gid = int(id)
	}
	return fs.FileMode(n), err == nil, uid, gid
}

func lookupUser(name string) (uint32, error) {
	return lookup(name, func() (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
}

func lookupGroup(name string) (uint32, error) {
	return lookup(name, func() (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
}

// lookup returns the number of a user or group that is given by name or number.
func lookup(name string, find func() (string, error)) (uint32, error) {
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(id), nil
	}
	text, err := find()
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(text, 10, 32)
	return uint32(id), err
}

// Parse reads a configuration: JSON with comments and trailing commas. Mistakes are
// returned as diagnostics, and the configuration is nil then.
func Parse(file string, text []byte) (*Config, []schema.Diagnostic) {
	d, plain, wrong := config.Document(file, text)
	if wrong != nil {
		return nil, []schema.Diagnostic{*wrong}
	}
	r := &reader{d: d}
	r.duplicates(&d.Root)
	var v any
	if err := json.Unmarshal(plain, &v); err != nil {
		r.errorf("", "%v", err)
	}
	var invalid *jsonschema.ValidationError
	if err := compiled().Validate(v); errors.As(err, &invalid) {
		r.invalid(invalid)
	} else if err != nil {
		r.errorf("", "%v", err)
	}
	if len(r.found) > 0 {
		return nil, schema.SortDiagnostics(r.found)
	}
	c := new(Config)
	if err := json.Unmarshal(plain, c); err != nil {
		r.errorf("", "%v", err)
		return nil, r.found
	}
	r.check(c)
	if len(r.found) > 0 {
		return nil, schema.SortDiagnostics(r.found)
	}
	dir := filepath.Dir(file)
	c.eachPath(func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	})
	return c, nil
}

// eachPath calls f for all settings that are names of files or folders.
func (c *Config) eachPath(f func(*string)) {
	f(&c.Credentials)
	f(&c.Cookies)
	for i := range c.Listen {
		f(&c.Listen[i].Certificate)
		f(&c.Listen[i].Key)
		f(&c.Listen[i].ClientCA)
	}
}

type reader struct {
	d     *schema.Document
	found []schema.Diagnostic
}

// errorf adds a mistake at a JSON Pointer.
func (r *reader) errorf(pointer, format string, args ...any) {
	r.errorAt(r.at(pointer).Span, format, args...)
}

func (r *reader) errorAt(at schema.Span, format string, args ...any) {
	r.found = append(r.found, schema.Diagnostic{Rule: config.Rule, Severity: schema.Error, Span: at, Message: fmt.Sprintf(format, args...)})
}

// at returns the value of a JSON Pointer, or of the nearest existing parent.
func (r *reader) at(pointer string) *schema.Value {
	v := &r.d.Root
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		next := member(v, token)
		if i, err := strconv.Atoi(token); next == nil && err == nil && v.Kind == schema.ArrayKind && i < len(v.Elems()) {
			next = &v.Elems()[i].Value
		}
		if next == nil {
			break
		}
		v = next
	}
	return v
}

func member(v *schema.Value, key string) *schema.Value {
	if v.Kind != schema.ObjectKind {
		return nil
	}
	for i, m := range v.Members() {
		if m.Key == key {
			return &v.Members()[i].Value
		}
	}
	return nil
}

// duplicates reports settings that are set twice.
func (r *reader) duplicates(v *schema.Value) {
	switch v.Kind {
	case schema.ObjectKind:
		seen := map[string]bool{}
		for i, m := range v.Members() {
			if seen[m.Key] {
				r.errorAt(m.Name.Span, "duplicate setting %s", schema.QuoteName(m.Key))
			}
			seen[m.Key] = true
			r.duplicates(&v.Members()[i].Value)
		}
	case schema.ArrayKind:
		for i := range v.Elems() {
			r.duplicates(&v.Elems()[i].Value)
		}
	}
}

var quoted = regexp.MustCompile(`'([^']*)'`)

// invalid reports the causes of a validation error.
func (r *reader) invalid(e *jsonschema.ValidationError) {
	if len(e.Causes) > 0 {
		for _, c := range e.Causes {
			r.invalid(c)
		}
		return
	}
	v := r.at(e.InstanceLocation)
	if strings.HasSuffix(e.KeywordLocation, "/additionalProperties") {
		for _, m := range v.Members() {
			for _, name := range quoted.FindAllStringSubmatch(e.Message, -1) {
				if name[1] == m.Key {
					r.errorAt(m.Name.Span, "unknown setting %s%s", schema.QuoteName(m.Key), r.nearest(e, m.Key))
				}
			}
		}
		return
	}
	message := e.Message
	switch name := path.Base(e.InstanceLocation); {
	case strings.HasSuffix(e.KeywordLocation, "/required"):
		message = strings.Replace(quoted.ReplaceAllString(message, `"$1"`), "missing properties", "missing setting", 1)
	case strings.HasSuffix(e.KeywordLocation, "/pattern") && name == "drain":
		message = "want a duration such as 5s"
	case strings.HasSuffix(e.KeywordLocation, "/pattern") && name == "mode":
		message = "want permissions such as 0660"
	}
	r.errorAt(v.Span, "%s", message)
}

// nearest suggests a setting for an unknown one.
func (r *reader) nearest(e *jsonschema.ValidationError, key string) string {
	s := compiled()
	for token := range strings.SplitSeq(strings.TrimPrefix(e.InstanceLocation, "/"), "/") {
		if next := s.Properties[token]; next != nil {
			s = next
		} else if next, ok := s.Items2020, s.Items2020 != nil; ok {
			s = next
		}
	}
	var names []string
	for name := range s.Properties {
		names = append(names, name)
	}
	if better := schema.Nearest(key, names); better != "" {
		return fmt.Sprintf(": did you mean %q?", better)
	}
	return ""
}

// check finds the mistakes that a schema cannot.
func (r *reader) check(c *Config) {
	for i, l := range c.Listen {
		at := fmt.Sprintf("/listen/%d", i)
		a, err := proxy.ParseAddress(l.Address)
		if err != nil {
			r.errorf(at+"/address", "%v", err)
			continue
		}
		file := a.Network == "unix" && a.Host[0] == '/'
		for _, s := range []struct {
			key, value, want string
			fits             bool
		}{
			{"mode", l.Mode, "a unix socket with a path", file},
			{"owner", l.Owner, "a unix socket with a path", file},
			{"group", l.Group, "a unix socket with a path", file},
			{"certificate", l.Certificate, "tls", a.TLS},
			{"key", l.Key, "tls", a.TLS},
			{"client_ca", l.ClientCA, "tls", a.TLS},
		} {
			if s.value != "" && !s.fits {
				r.errorf(at+"/"+s.key, "%s is for %s, and the address is %s", s.key, s.want, a)
			}
		}
		switch {
		case a.TLS && (l.Certificate == "" || l.Key == ""):
			r.errorf(at, "tls needs certificate and key")
		case l.Public && (a.Network != "tcp" || a.TLS):
			r.errorf(at+"/public", "public is for tcp, and the address is %s", a)
		case !a.TLS && !a.Loopback() && !l.Public:
			r.errorf(at+"/address", "%s: other systems could use the proxy without authentication: want a loopback address, tls, or \"public\": true", a)
		case a.TLS && !a.Loopback() && l.ClientCA == "":
			r.errorf(at, "tls on an address that other systems can reach needs client_ca")
		}
		if _, err := lookupUser(l.Owner); err != nil && l.Owner != "" {
			r.errorf(at+"/owner", "%v", err)
		}
		if _, err := lookupGroup(l.Group); err != nil && l.Group != "" {
			r.errorf(at+"/group", "%v", err)
		}
	}
	if c.Metrics != "" {
		a, err := proxy.ParseAddress(c.Metrics)
		switch {
		case err != nil:
			r.errorf("/metrics", "%v", err)
		case a.TLS || a.Network == "mux" || !a.Loopback():
			r.errorf("/metrics", "%s: want a unix socket, or tcp with a loopback address", a)
		}
	}
	names := map[string]bool{}
	for i := range c.Roles {
		role, at := &c.Roles[i], fmt.Sprintf("/roles/%d", i)
		if names[role.Name] {
			r.errorf(at+"/name", "two roles have the name %q", role.Name)
		}
		names[role.Name] = true
		role.uids = r.ids(at+"/users", role.Users, lookupUser)
		role.gids = r.ids(at+"/groups", role.Groups, lookupGroup)
		for j, pattern := range role.StreamTypes {
			if _, err := path.Match(pattern, ""); err != nil {
				r.errorf(fmt.Sprintf("%s/streamtypes/%d", at, j), "%q: %v", pattern, err)
			}
		}
	}
}

// ids looks up users or groups.
func (r *reader) ids(at string, names []string, lookup func(string) (uint32, error)) (ids []uint32) {
	for i, name := range names {
		id, err := lookup(name)
		if err != nil {
			r.errorf(fmt.Sprintf("%s/%d", at, i), "%v", err)
			continue
		}
		ids = append(ids, id)
	}
	return ids
}
