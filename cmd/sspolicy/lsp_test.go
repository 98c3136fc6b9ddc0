package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/jsonrpc2"
)

// TestLSP checks that the command serves a client over its standard input and output,
// writes nothing else there, and exits with 1 if the client disconnects without a shutdown
// request.
func TestLSP(t *testing.T) {
	for _, polite := range []bool{true, false} {
		cmd := exec.Command("sspolicy", "lsp", "--stdio")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		found := make(chan string, 1)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		client := jsonrpc2.HandlerWithError(func(_ context.Context, _ *jsonrpc2.Conn, r *jsonrpc2.Request) (any, error) {
			found <- string(*r.Params)
			return nil, nil
		})
		stream := stdio{out, in, func() error { return in.Close() }}
		conn := jsonrpc2.NewConn(ctx, jsonrpc2.NewBufferedStream(stream, jsonrpc2.VSCodeObjectCodec{}), client)
		if err := conn.Call(ctx, "initialize", json.RawMessage(`{"processId":null,"rootUri":null,"capabilities":{}}`), nil); err != nil {
			t.Fatal(err)
		}
		err = conn.Notify(ctx, "textDocument/didOpen", json.RawMessage(`{"textDocument":{"uri":"untitled:1","languageId":"json","version":7,"text":"{\"s\": 1}"}}`))
		if err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-found:
			if !strings.Contains(got, `"version":7`) || !strings.Contains(got, `"code":"wrong-type"`) {
				t.Errorf("got %s", got)
			}
		case <-ctx.Done():
			t.Fatal("no diagnostics")
		}
		want := exitFindings
		if polite {
			want = exitOK
			if err := conn.Call(ctx, "shutdown", nil, nil); err != nil {
				t.Fatal(err)
			}
			if err := conn.Notify(ctx, "exit", nil); err != nil {
				t.Fatal(err)
			}
		} else {
			in.Close()
		}
		<-conn.DisconnectNotify()
		if cmd.Wait(); cmd.ProcessState.ExitCode() != want {
			t.Errorf("polite %t: exit code %d, want %d", polite, cmd.ProcessState.ExitCode(), want)
		}
	}
}

// TestNeovim checks that Neovim marks a mistake, completes, explains and fixes a key,
// renames a trust store, and formats the policy.
func TestNeovim(t *testing.T) {
	edit(t, `diagnostic: 27:17 port must be 0 to 65535, not 70443; lws keeps 4907
completion: timeout_ms": ,
hover: Protocol of the connection. The default is h1.
renamed
action: Write opportunistic
fixed
formatted
done
`, "nvim", "--clean", "--headless", "-n", "-S", "neovim.lua")
}

// edit runs an editor with a script from testdata/editors, in a folder with policy.json.
// The script writes result.txt.
func edit(t *testing.T, want, editor string, args ...string) {
	t.Helper()
	script, err := filepath.Abs(filepath.Join("testdata/editors", args[len(args)-1]))
	if err != nil {
		t.Fatal(err)
	}
	args[len(args)-1] = script
	policy, err := os.ReadFile("../../fixtures/weather.json")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "policy.json"), policy, 0o666); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, editor, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_STATE_HOME="+dir, "XDG_CACHE_HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	got, _ := os.ReadFile(filepath.Join(dir, "result.txt"))
	if err != nil || string(got) != want {
		t.Errorf("%s: %v\n%s\ngot:\n%s\nwant:\n%s", editor, err, out, got, want)
	}
}
