package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secure-streams/sspolicy/internal/teststream"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

func TestOpen(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("X-Out", "out of "+r.Header.Get("X-In"))
		w.(http.Flusher).Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				fmt.Fprintf(w, "<%s>", buf[:n])
				w.(http.Flusher).Flush()
			}
			if err != nil {
				return
			}
		}
	}, nil)
	conn, err := c.Open(t.Context(), "post", runtime.WithMetadata("in", "here"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 100)
	for _, text := range []string{"one", "two"} { // the server answers each before the next
		if n, err := io.WriteString(conn, text); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
		if n, err := conn.Read(buf); string(buf[:n]) != "<"+text+">" || err != nil {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	if n, err := conn.Write(nil); n != 0 || err != nil {
		t.Error(n, err)
	}
	if v, err := conn.Metadata("out"); v != "out of here" || err != nil {
		t.Error(v, err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := conn.Write([]byte("more")); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	for range 2 {
		if n, err := conn.Read(buf); n != 0 || err != io.EOF {
			t.Error(n, err)
		}
	}
	if v, err := conn.Metadata("out"); v != "out of here" || err != nil {
		t.Errorf("at the end: %q, %v", v, err)
	}
	conn.Close()
	if _, err := conn.Write([]byte("more")); err == nil {
		t.Error("Write succeeds after Close")
	}
}

func TestOpenWithBody(t *testing.T) {
	c := serve(t, echo, nil)
	for name, o := range map[string]runtime.CallOption{
		"bytes":  runtime.WithBody([]byte("body")),
		"reader": runtime.WithBodyReader(strings.NewReader("body"), 4),
	} {
		conn, err := c.Open(t.Context(), "post", o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Metadata("out"); err != nil {
			t.Error(err)
		}
		if _, err := conn.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
		if got, err := io.ReadAll(conn); string(got) != "body (POST, 4)" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	conn, err := c.Open(t.Context(), "get")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); !errors.Is(err, runtime.ErrNoBody) {
		t.Error(err)
	}
}

func TestConnNack(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, strings.TrimPrefix(r.Header.Get("X-In"), "-"))
	}, nil)
	for _, body := range []string{"text", ""} {
		conn, err := c.Open(t.Context(), "get", runtime.WithMetadata("in", body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		nack, ok := errors.AsType[*runtime.NackError](err)
		if string(got) != body || !ok || nack.Status != 418 || nack.State != 1418 || nack.Response != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// TestConnBackpressure checks that payload which is not read stays at the peer.
func TestConnBackpressure(t *testing.T) {
	const (
		most = 256 << 10 // capacity of the buffers of net/http
		read = 32 << 20
	)
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		c := serveInProcess(t, func(w http.ResponseWriter, r *http.Request) {
			for sent.Load() < 2*read {
				n, err := w.Write(make([]byte, 64<<10))
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		}, nil)
		conn, err := c.Open(t.Context(), "get")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := sent.Load(); n > most {
			t.Errorf("the peer could send %d bytes before any were read", n)
		}
		if n, err := io.CopyN(io.Discard, conn, read); err != nil {
			t.Fatal(n, err)
		}
		synctest.Wait()
		if n := sent.Load(); n < read || n > read+most {
			t.Errorf("the peer has sent %d bytes when %d were read", n, read)
		}
		conn.Close()
		if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, runtime.ErrClosed) {
			t.Error(n, err)
		}
	})
}

// TestConnEnds checks that the end of a Conn unblocks calls, both with and without a
// received piece that waits for a reader.
func TestConnEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(c *runtime.Context, conn *runtime.Conn, cancel context.CancelFunc)
		want error
	}{
		{"Close", func(_ *runtime.Context, conn *runtime.Conn, _ context.CancelFunc) { conn.Close() }, runtime.ErrClosed},
		{"the context of Open", func(_ *runtime.Context, _ *runtime.Conn, cancel context.CancelFunc) { cancel() }, context.Canceled},
		{"Close of the Context", func(c *runtime.Context, _ *runtime.Conn, _ context.CancelFunc) { c.Close() }, runtime.ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for _, rx := range []int{0, 3} {
					c := newContext(t, policy.StreamType{Protocol: policy.ProtocolRaw}, func(ctx context.Context, l transport.Link) error {
						if err := l.Connected(); err != nil {
							return err
						}
						for range rx {
							if err := l.Rx([]byte("x"), 0); err != nil {
								return err
							}
						}
						return hang(ctx, l)
					})
					ctx, cancel := context.WithCancel(ctx)
					conn, err := c.Open(ctx, "s")
					if err != nil {
						t.Fatal(err)
					}
					errs := make(chan error, 2)
					go func() {
						_, err := conn.Write([]byte("abc"))
						errs <- err
					}()
					if rx == 0 {
						go func() {
							_, err := conn.Read(make([]byte, 1))
							errs <- err
						}()
					}
					synctest.Wait()
					tt.end(c, conn, cancel)
					synctest.Wait()
					if rx > 0 {
						_, err := conn.Read(make([]byte, 1))
						errs <- err
					}
					for range 2 {
						if err := <-errs; !errors.Is(err, tt.want) {
							t.Errorf("%d received: %v", rx, err)
						}
					}
					teststream.Shutdown(t, c)
					cancel()
				}
			})
		})
	}
}

// TestConnClosedUnread checks that Read does not return io.EOF after Close with payload
// left to read.
func TestConnClosedUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, err := serveInProcess(t, echo, nil).Open(t.Context(), "get")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // everything has arrived
		conn.Close()
		if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, runtime.ErrClosed) {
			t.Error(n, err)
		}
	})
}

// TestConnRetry checks that a Conn does not retry after part of the body was sent.
func TestConnRetry(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex() // otherwise it waits for the rest of the body
		io.ReadFull(r.Body, make([]byte, 3))
		w.WriteHeader(http.StatusServiceUnavailable)
	}, func(st *policy.StreamType) { st.Retry = &policy.Retry{Backoff: ms(1), Conceal: 65535} })
	conn, err := c.Open(t.Context(), "post")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "abc"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, runtime.ErrBodySpent) {
		t.Error(err)
	}
}

// TestConnRetryEmpty checks that CloseWrite of an empty body holds for later attempts.
func TestConnRetryEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		c := serveInProcess(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			if n.Add(1) == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			io.WriteString(w, "fine")
		}, func(st *policy.StreamType) { st.Retry = &policy.Retry{Backoff: ms(1), Conceal: 65535} })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		conn, err := c.Open(ctx, "post")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.CloseWrite()
		if got, err := io.ReadAll(conn); string(got) != "fine" || err != nil || n.Load() != 2 {
			t.Errorf("%q, %v after %d attempts", got, err, n.Load())
		}
	})
}

// TestCloseWriteWithBody checks that CloseWrite does not truncate a body that was given
// to Open.
func TestCloseWriteWithBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := serveInProcess(t, func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			w.(http.Flusher).Flush()
			io.Copy(w, r.Body)
		}, nil)
		body, out := io.Pipe()
		defer body.Close()
		conn, err := c.Open(t.Context(), "post", runtime.WithBodyReader(body, -1))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(out, "abc")
		conn.CloseWrite()
		synctest.Wait() // the message could end
		go func() {
			io.WriteString(out, "def")
			out.Close()
		}()
		if got, err := io.ReadAll(conn); string(got) != "abcdef" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// newMessages returns a context whose streamtype "s" is ws, executed by run.
func newMessages(t *testing.T, st policy.StreamType, run run) *runtime.Context {
	st.Protocol, st.HTTP = policy.ProtocolWS, &policy.HTTP{}
	return newContext(t, st, run)
}

// pieces returns an attempt that connects and delivers pieces: "[" starts a message, "]"
// ends it.
func pieces(texts ...string) run {
	return func(_ context.Context, l transport.Link) error {
		if err := l.Connected(); err != nil {
			return err
		}
		for _, text := range texts {
			var flags runtime.Flags
			if strings.HasPrefix(text, "[") {
				flags |= runtime.FlagSOM
			}
			if strings.HasSuffix(text, "]") {
				flags |= runtime.FlagEOM
			}
			if text == "perf" {
				flags = runtime.FlagPerfJSON | runtime.FlagSOM | runtime.FlagEOM
			}
			if err := l.Rx([]byte(strings.Trim(text, "[]")), flags); err != nil {
				return err
			}
		}
		return errFake
	}
}

func TestMessages(t *testing.T) {
	for _, tt := range []struct {
		name string
		st   policy.StreamType
		runs []run
		want []string
		err  error
	}{
		{"whole and in parts", policy.StreamType{Opportunistic: true},
			[]run{pieces("[one]", "[t", "w", "o]", "perf", "[]", "[three", "]")},
			[]string{"one", "two", "", "three"}, errFake},
		{"cut, then with the next connection", policy.StreamType{Retry: &policy.Retry{Backoff: ms(1), Conceal: 1}},
			[]run{pieces("[one]", "[tw"), pieces("[three]"), unreachable},
			[]string{"one", "lost: " + errFake.Error(), "three"}, runtime.ErrAllRetriesFailed},
		{"too long", policy.StreamType{Opportunistic: true},
			[]run{pieces("[12345]", "[123", "456]")},
			[]string{"12345"}, runtime.ErrTooLong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, err := newMessages(t, tt.st, each(tt.runs...)).Open(t.Context(), "s", runtime.WithLimit(5))
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				var last error
				for range 2 { // the second loop continues where the first stopped
					for m, err := range conn.Messages() {
						var lost *runtime.ReconnectError
						if errors.As(err, &lost) {
							got = append(got, "lost: "+lost.Err.Error())
							continue
						}
						if last = err; err != nil {
							break
						}
						got = append(got, string(m))
						if len(got) == 1 {
							break
						}
					}
				}
				if !slices.Equal(got, tt.want) || !errors.Is(last, tt.err) {
					t.Errorf("%q, %v, want %q, %v", got, last, tt.want, tt.err)
				}
			})
		})
	}
}

func TestMessagesHTTP(t *testing.T) {
	c := serve(t, echo, nil)
	conn, err := c.Open(t.Context(), "post", runtime.WithBody([]byte("body")))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for m, err := range conn.Messages() {
		got = append(got, fmt.Sprint(string(m), err))
	}
	if want := []string{"body (POST, 4)<nil>"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestReconnect checks when a Conn reports the loss of its connection, and that it does not
// reconnect before the program requests it.
func TestReconnect(t *testing.T) {
	again := policy.StreamType{Retry: &policy.Retry{Backoff: ms(1), Conceal: 65535}}
	read := func(conn *runtime.Conn) string {
		buf := make([]byte, 10)
		n, err := conn.Read(buf)
		if lost, ok := errors.AsType[*runtime.ReconnectError](err); ok {
			return "lost " + lost.Err.Error()
		} else if err != nil {
			return err.Error()
		}
		return string(buf[:n])
	}
	for _, tt := range []struct {
		name string
		use  func(conn *runtime.Conn) []string
		want []string
		runs int32 // total number of connections
	}{
		{"a program that reads decides", func(conn *runtime.Conn) []string {
			got := []string{read(conn), read(conn)}
			time.Sleep(time.Hour)
			return got
		}, []string{"1", "lost 1"}, 1},
		{"another Read", func(conn *runtime.Conn) []string {
			got := []string{read(conn), read(conn)}
			time.Sleep(time.Hour)
			return append(got, read(conn), read(conn))
		}, []string{"1", "lost 1", "2", "lost 2"}, 2},
		{"a Write", func(conn *runtime.Conn) []string {
			got := []string{read(conn), read(conn)}
			time.Sleep(time.Hour)
			go io.WriteString(conn, "x") // fails, since no peer sends it
			time.Sleep(time.Hour)
			return append(got, read(conn))
		}, []string{"1", "lost 1", "2"}, 3}, // a pending Write requests the connection too
		{"a program that has not read", func(conn *runtime.Conn) []string {
			time.Sleep(time.Hour) // the piece of the second connection waits behind that of the first
			return []string{read(conn), read(conn), read(conn)}
		}, []string{"1", "lost 1", "2"}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var runs atomic.Int32
				c := newMessages(t, again, func(ctx context.Context, l transport.Link) error {
					n := fmt.Sprint(runs.Add(1))
					if err := l.Connected(); err != nil {
						return err
					}
					if err := l.Rx([]byte(n), runtime.FlagSOM|runtime.FlagEOM); err != nil {
						return err
					}
					time.Sleep(2 * time.Second)
					return errors.New(n)
				})
				conn, err := c.Open(t.Context(), "s")
				if err != nil {
					t.Fatal(err)
				}
				if got := tt.use(conn); !slices.Equal(got, tt.want) {
					t.Errorf("%q, want %q", got, tt.want)
				}
				conn.Close()
				if n := runs.Load(); n != tt.runs {
					t.Errorf("%d connections, want %d", n, tt.runs)
				}
			})
		})
	}
}

// TestWriteMessages checks that each Write over ws is a message, in as many pieces as the
// transport requests, and that a message does not continue on another connection.
func TestWriteMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		take := func(n int) run {
			return func(ctx context.Context, l transport.Link) error {
				if err := l.Connected(); err != nil {
					return err
				}
				buf := make([]byte, 4)
				for i := 0; i < n; {
					n, flags, err := tx(l, buf)
					if err != nil {
						return err
					}
					if n > 0 || flags != 0 {
						got = append(got, fmt.Sprintf("%s %d", buf[:n], flags))
						i++
						continue
					}
					select {
					case <-l.Ready():
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				return errFake
			}
		}
		c := newMessages(t, policy.StreamType{Retry: &policy.Retry{Backoff: ms(1), Conceal: 65535}}, each(take(4), take(100)))
		conn, err := c.Open(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"abc", "abcdef", ""} {
			if n, err := io.WriteString(conn, text); n != len(text) || err != nil {
				t.Errorf("%q: %d, %v", text, n, err)
			}
		}
		time.Sleep(time.Second)
		if n, err := io.WriteString(conn, "next"); n != 4 || err != nil {
			t.Error(n, err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Error(err)
		}
		if n, err := io.WriteString(conn, "last"); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
			t.Error(n, err)
		}
		teststream.Shutdown(t, c)
		want := []string{"abc 3", "abcd 1", "ef 2", " 3", "next 3"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestWriteLost checks that Write fails when the connection is lost in its message.
func TestWriteLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMessages(t, policy.StreamType{Retry: &policy.Retry{Backoff: ms(1), Conceal: 65535}}, func(ctx context.Context, l transport.Link) error {
			if err := l.Connected(); err != nil {
				return err
			}
			if _, _, err := tx(l, make([]byte, 2)); err != nil {
				return err
			}
			select {
			case <-l.Ready():
			case <-ctx.Done():
				return ctx.Err()
			}
			if _, _, err := tx(l, make([]byte, 2)); err != nil {
				return err
			}
			return errFake
		})
		conn, err := c.Open(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.WriteString(conn, "abcdef"); n != 2 && n != 4 || !errors.Is(err, errFake) {
			t.Error(n, err)
		}
	})
}

// TestConnWriteKept checks that a message that is pending when the connection is lost is
// sent on the next one.
func TestConnWriteKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContext(t, policy.StreamType{
			Protocol: policy.ProtocolMQTT, MQTT: &policy.MQTT{Topic: "t"}, Retry: &policy.Retry{Backoff: ms(100), Conceal: 1},
		}, each(func(_ context.Context, l transport.Link) error {
			if err := l.Connected(); err != nil {
				return err
			}
			time.Sleep(time.Second)
			return errFake
		}, publish))
		conn, err := c.Open(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.WriteString(conn, "text"); n != 4 || err != nil {
			t.Error(n, err)
		}
		conn.Close()
	})
}

// TestCloseInterrupted checks that Close reports a message that the transport may not have
// sent when the context was closed or its policy was changed.
func TestCloseInterrupted(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(*runtime.Context) error
		want error
	}{
		{"policy", func(c *runtime.Context) error { return c.SetPolicy(&policy.Policy{}) }, runtime.ErrPolicyChanged},
		{"context", (*runtime.Context).Close, runtime.ErrClosed},
	} {
		for _, asksAgain := range []bool{false, true} { // request more payload after the last piece
			for _, closing := range []bool{false, true} { // Close is waiting at the end
				t.Run(fmt.Sprint(test.name, asksAgain, closing), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						c := newMessages(t, policy.StreamType{}, func(ctx context.Context, l transport.Link) error {
							if err := l.Connected(); err != nil {
								return err
							}
							buf := make([]byte, 8)
							for n := 0; n == 0; n, _, _ = tx(l, buf) {
								<-l.Ready()
							}
							if asksAgain {
								tx(l, buf)
							}
							return hang(ctx, l)
						})
						conn, err := c.Open(t.Context(), "s")
						if err != nil {
							t.Fatal(err)
						}
						if _, err := io.WriteString(conn, "text"); err != nil {
							t.Fatal(err)
						}
						closed := make(chan error, 1)
						shut := func() { closed <- conn.Close() }
						if closing {
							go shut()
						}
						synctest.Wait()
						if err := test.end(c); err != nil {
							t.Fatal(err)
						}
						synctest.Wait()
						if !closing {
							shut()
						}
						err = <-closed
						missing, ok := errors.AsType[*runtime.UnacknowledgedError](err)
						if asksAgain && err != nil || !asksAgain && (!ok || missing.Missing != 1 || !errors.Is(err, test.want)) {
							t.Error(err)
						}
					})
				})
			}
		}
	}
}
