package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/secure-streams/sspolicy/internal/readfile"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/policy"
)

// data returns the payload to send, or nil for none.
func (c *runCmd) data(p *program, st *policy.StreamType) ([]byte, error) {
	switch {
	case st.Server: // servers have their own flags
	case st.MQTT != nil && st.MQTT.Subscribe == "" && (c.Data == nil || c.Count > 0):
		return nil, usage("streamtype %q has no mqtt_subscribe and receives nothing: give the payload to publish with --data, without --count", st.Name)
	case st.MQTT != nil && st.MQTT.Topic == "" && c.Data != nil:
		return nil, usage("streamtype %q has no mqtt_topic and sends nothing", st.Name)
	case c.Data != nil && *c.Data != "" && !st.Sends():
		return nil, usage("streamtype %q sends nothing: its http_method is %s", st.Name, cmp.Or(st.HTTP.Method, "GET"))
	case c.Data != nil:
		return c.text(p, "--data", *c.Data)
	case st.Protocol.IsHTTP() && st.Sends():
		return c.text(p, "--data", "@-")
	}
	return nil, nil
}

// text returns the value of a flag, or the content of the file that it names. The
// text is never nil.
func (c *runCmd) text(p *program, flag, value string) ([]byte, error) {
	file, ok := strings.CutPrefix(value, "@")
	if !ok {
		return []byte(value), nil
	}
	if file == "-" {
		if c.stdin != "" || c.File == "-" && c.Proxy == "" || slices.Contains(c.Overlay, "-") {
			return nil, usage("standard input is already %s: give %s a file or a text", cmp.Or(c.stdin, "a policy"), flag)
		}
		c.stdin = flag
		data, err := readfile.All(p.stdin, maxLarge)
		if err != nil {
			return nil, fileError(file, err)
		}
		return data, nil
	}
	data, err := readfile.Any(file, maxLarge)
	if err != nil {
		return nil, fileError(file, err)
	}
	return data, nil
}

// messages returns the payload to send, by streamtype; nil for none.
func (c *runCmd) messages(p *program, ctx *runtime.Context, st *policy.StreamType, data []byte) (map[string][]byte, error) {
	chain, err := ctx.Policy().Chain(st)
	if err != nil {
		return nil, fmt.Errorf("streamtype %q: %w", st.Name, err)
	}
	var names []string
	for _, other := range chain[1:] {
		names = append(names, other.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Part)) {
		if name == st.Name {
			return nil, usage("--part is for other streamtypes: give the payload of %q with --data", name)
		}
		if !slices.Contains(names, name) {
			return nil, unknown(fmt.Sprintf("streamtype %q shares no request with", st.Name), name, names)
		}
	}
	if data == nil {
		return nil, nil
	}
	messages := map[string][]byte{st.Name: data}
	for _, name := range names {
		text, ok := c.Part[name]
		if !ok {
			return nil, usage("streamtype %q shares its request with %q: give the payload of that with --part %s=TEXT", st.Name, name, name)
		}
		if messages[name], err = c.text(p, "--part", text); err != nil {
			return nil, err
		}
	}
	return messages, nil
}

// credentials returns the credentials of the flags, the folder and the environment.
func (c *runCmd) credentials(p *program) (runtime.Credentials, error) {
	texts := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Credential)) {
		if !credentials.IsName(name) {
			return nil, unknown("unknown credential", name, append(blobNames(), "client_cert.0", "client_key.0", "server_cert.STREAM", "server_key.STREAM"))
		}
		text, err := c.text(p, "--credential", c.Credential[name])
		if err != nil {
			return nil, err
		}
		texts[name] = strings.TrimRight(string(text), "\r\n")
	}
	chain := credentials.Chain{&credentials.Named{Lookup: func(name string) string { return texts[name] }}}
	if c.Credentials != "" {
		if err := checkCredentials(c.Credentials); err != nil {
			return nil, err
		}
		files := &credentials.Files{Dir: c.Credentials}
		if !c.JSON {
			for _, name := range files.Exposed() {
				fmt.Fprintf(p.stderr, "sspolicy: warning: others may read the secret in %s\n", harmless(name))
			}
		}
		chain = append(chain, files)
	}
	return append(chain, &credentials.Env{Prefix: "SSPOLICY_"}), nil
}

// checkCredentials checks that dir is a folder of credentials.
func checkCredentials(dir string) error {
	if info, err := os.Stat(dir); err != nil {
		return fileError(dir, err)
	} else if !info.IsDir() {
		return usage("credentials: %s is not a folder", dir)
	}
	return nil
}

// keep writes the request for the next token to the file of the previous one, which is now
// invalid.
func (c *runCmd) keep(p *program, request string) {
	name := policy.BlobAuth.Name(1)
	files := &credentials.Files{Dir: c.Credentials}
	err := errors.New("it was not in a file of --credentials")
	if c.Credential[name] == "" {
		if _, err = files.Blob(context.Background(), policy.BlobAuth, 1); err == nil {
			err = files.SetBlob(policy.BlobAuth, 1, request)
		}
	}
	if err != nil && !c.JSON {
		fmt.Fprintf(p.stderr, "sspolicy: warning: the token server has replaced the refresh token in %s, and the new one is lost: %s\n", name, visible(err.Error()))
	}
}

// blobNames returns the names of all credentials that are texts.
func blobNames() (names []string) {
	for b := policy.Blob(0); b.Name(0) != ""; b++ {
		for index := 0; b.Name(index) != ""; index++ {
			names = append(names, b.Name(index))
		}
	}
	return names
}
