package extract

import (
	"strconv"
	"strings"

	"github.com/secure-streams/sspolicy/schema"
)

// split splits a directive into its name and its tokens.
func (l *lexer) split(t token) (name string, body []token) {
	sub := &lexer{src: &schema.Source{}, text: l.text[:t.end], pos: t.start + 1}
	for sub.space(); sub.pos < t.end; sub.space() {
		body = append(body, sub.next())
	}
	if len(body) == 0 {
		return "", nil
	}
	return l.word(body[0]), body[1:]
}

func (l *lexer) directiveName(t token) string {
	name, _ := l.split(t)
	return name
}

// directive executes a directive of the preprocessor.
func (l *lexer) directive(t token) {
	name, body := l.split(t)
	n := len(l.active)
	on := l.off(n) == 0
	switch {
	case name == "if", name == "ifdef", name == "ifndef":
		l.active = append(l.active, branch{})
		l.enter(on && l.condition(name, body))
	case n > 0 && (name == "else" || name == "elif"):
		l.enter(!l.active[n-1].compiled && (name == "else" || l.condition("if", body)))
	case n > 0 && name == "endif":
		l.active = l.active[:n-1]
	case !on || len(body) == 0:
	case name == "define":
		macro := l.word(body[0])
		if len(body) > 1 && l.word(body[1]) == "(" && body[1].start == body[0].end {
			l.macros[macro] = []token{{kind: otherToken}} // with parameters
		} else {
			l.macros[macro] = body[1:]
		}
	case name == "undef":
		delete(l.macros, l.word(body[0]))
	}
}

// enter starts a part of the innermost conditional. on says whether it is compiled.
func (l *lexer) enter(on bool) {
	n := len(l.active)
	b := &l.active[n-1]
	b.off = l.off(n - 1)
	if !on {
		b.off++
	}
	b.compiled = b.compiled || on
}

// condition reports whether a condition is true.
func (l *lexer) condition(directive string, body []token) bool {
	if directive != "if" {
		return len(body) > 0 && l.defined(l.word(body[0])) == (directive == "ifdef")
	}
	e := &expression{lexer: l, body: body}
	return e.or() != 0
}

func (l *lexer) defined(name string) bool {
	_, here := l.macros[name]
	_, outside := l.define[name]
	return here || outside
}

// An expression is a condition under evaluation. It supports what real policies
// use; unknown parts are 0.
type expression struct {
	*lexer
	body  []token
	depth int
}

// take consumes a token if the text starts with one of the operators, longer ones
// first.
func (e *expression) take(operators ...string) string {
	for _, o := range operators {
		if len(e.body) == 0 || !strings.HasPrefix(e.text[e.body[0].start:], o) || o == "!" && strings.HasPrefix(e.text[e.body[0].start:], "!=") {
			continue
		}
		end := e.body[0].start + len(o)
		for len(e.body) > 0 && e.body[0].start < end {
			e.body = e.body[1:]
		}
		return o
	}
	return ""
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (e *expression) or() int64 {
	v := e.and()
	for e.take("||") != "" {
		w := e.and()
		v = truth(v != 0 || w != 0)
	}
	return v
}

func (e *expression) and() int64 {
	v := e.compare()
	for e.take("&&") != "" {
		w := e.compare()
		v = truth(v != 0 && w != 0)
	}
	return v
}

func (e *expression) compare() int64 {
	v := e.unary()
	for {
		switch e.take("==", "!=", "<=", ">=", "<", ">") {
		case "==":
			v = truth(v == e.unary())
		case "!=":
			v = truth(v != e.unary())
		case "<=":
			v = truth(v <= e.unary())
		case ">=":
			v = truth(v >= e.unary())
		case "<":
			v = truth(v < e.unary())
		case ">":
			v = truth(v > e.unary())
		default:
			return v
		}
	}
}

func (e *expression) unary() int64 {
	if e.depth++; e.depth > 100 || len(e.body) == 0 {
		return 0
	}
	defer func() { e.depth-- }()
	switch {
	case e.take("!") != "":
		return truth(e.unary() == 0)
	case e.take("(") != "":
		v := e.or()
		e.take(")")
		return v
	}
	t := e.body[0]
	e.body = e.body[1:]
	word := e.word(t)
	if word == "defined" {
		open := e.take("(") != ""
		if len(e.body) == 0 {
			return 0
		}
		name := e.word(e.body[0])
		e.body = e.body[1:]
		if open {
			e.take(")")
		}
		return truth(e.defined(name))
	}
	if value, ok := e.define[word]; ok {
		word = value
	} else if body := e.macros[word]; len(body) == 1 {
		word = e.word(body[0])
	}
	n, _ := strconv.ParseInt(strings.TrimRight(word, "uUlL"), 0, 64)
	return n
}
