package celrules

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/schema"
)

// A Spec is a rule as defined in a configuration.
type Spec struct {
	ID         string // two words joined by "/"
	Target     string // one of Targets: the objects to evaluate Expression for
	Expression string // true unless the rule is violated
	Message    string // with expressions in ${...}; "" for a message that quotes Expression
	Severity   schema.Severity
	LWS        Range
	At         string // the field at which to report; "" for the name of the target
	Why        string // in Markdown
}

// A Mistake is an error in a Spec.
type Mistake struct {
	In      string // the field: "id", "target", "expression", "message" or "at"
	Offset  int    // in the text of the field, in bytes
	Message string
}

// The limits of expressions, in the units of CEL's cost model: a comparison of two numbers
// costs 1. maxCost is that of one evaluation. maxRule is that of all evaluations of a rule
// in a policy, a second or two, and maxRules that of all rules; they are variables for tests.
const maxCost = 500_000

var (
	maxRule  uint64 = 5_000_000
	maxRules uint64 = 20_000_000
)

// maxLength is the maximum length of an expression in characters. maxRegex is the maximum
// size of a compiled regular expression in instructions: the cost model counts only the
// text, in which "(a?){500}" is short.
const (
	maxLength = 10_000
	maxRegex  = 5_000
)

// environment returns the environment of expressions, and the function that
// declares the variable of a class.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	base, err := cel.NewEnv()
	if err != nil {
		return nil, err
	}
	options := []cel.EnvOption{
		cel.CustomTypeProvider(provider{base.CELTypeProvider()}), cel.CustomTypeAdapter(adapter{base.CELTypeAdapter()}),
		ext.Strings(), ext.Lists(), ext.Sets(),
		cel.ParserExpressionSizeLimit(maxLength), cel.RegexProgramSizeLimit(maxRegex),
		cel.Variable("now", cel.TimestampType),
		cel.Variable(policyClass.name, policyClass.typ),
	}
	return base.Extend(options...)
})

var environments = map[*class]func() (*cel.Env, error){}

func init() {
	for _, c := range classes {
		environments[c] = sync.OnceValues(func() (*cel.Env, error) {
			env, err := environment()
			if err != nil || c == policyClass {
				return env, err
			}
			return env.Extend(cel.Variable(c.name, c.typ))
		})
	}
}

var validID = regexp.MustCompile(`^[a-z][a-z0-9-]*/[a-z][a-z0-9-]*$`)

// CheckID returns why a name is not a valid rule ID, or "".
func CheckID(id string) string {
	if !validID.MatchString(id) {
		return fmt.Sprintf("%s is not an id such as \"corp/own-roots\": two names in lower case, joined by a slash", schema.QuoteName(id))
	}
	return ""
}

// Compile compiles a rule. It returns the rule, or its mistakes.
func Compile(s Spec) (*lint.Rule, []Mistake) {
	var wrong []Mistake
	mistake := func(in string, offset int, format string, args ...any) {
		wrong = append(wrong, Mistake{in, offset, fmt.Sprintf(format, args...)})
	}
	if problem := CheckID(s.ID); problem != "" {
		mistake("id", 0, "%s", problem)
	}
	c := classOf(s.Target)
	if c == nil {
		mistake("target", 0, "unknown target %s: want one of %s", schema.QuoteName(s.Target), strings.Join(Targets(), ", "))
		return nil, wrong
	}
	if f := fields()[c][s.At]; s.At != "" && (f == nil || f.key == nil) {
		mistake("at", 0, "%s is not a key of %s%s", schema.QuoteName(s.At), c.summary, didYouMean(s.At, fieldNames(c)))
	}
	env, err := environments[c]()
	if err != nil {
		panic("celrules: " + err.Error()) // a constant expression of this package
	}
	r := &rule{spec: s, class: c}
	var more []Mistake
	r.holds, more = compile(env, s.Expression, "expression", 0, func(t *cel.Type) string {
		if t.IsExactType(types.BoolType) || t.IsExactType(types.DynType) {
			return ""
		}
		return fmt.Sprintf("the expression is of type %s: it must be true or false", typeName(t))
	})
	wrong = append(wrong, more...)
	r.message, more = parseMessage(env, s.Message)
	wrong = append(wrong, more...)
	if len(wrong) > 0 {
		return nil, wrong
	}
	return &lint.Rule{
		Name: s.ID, Severity: s.Severity, Summary: summary(s),
		Why:   strings.TrimSpace(s.Why + "\n\nFor " + c.summary + " this must be true" + s.LWS.forVersions() + ":\n\n    " + strings.ReplaceAll(strings.TrimSpace(s.Expression), "\n", "\n    ")),
		Check: r.check,
	}, nil
}

// forVersions describes the versions for which a rule is checked.
func (r Range) forVersions() string {
	if r.text == "" {
		return ""
	}
	return ", for lws " + r.text
}

var embedded = regexp.MustCompile(`\$\{[^}]*\}`)

// summary returns the summary of a rule: its message without expressions.
func summary(s Spec) string {
	if s.Message == "" {
		return "not true: " + oneLine(s.Expression)
	}
	return strings.TrimSuffix(oneLine(embedded.ReplaceAllString(s.Message, "…")), ".")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// typeName returns the name of a type for messages.
func typeName(t *cel.Type) string { return strings.TrimPrefix(t.String(), "sspolicy.") }

func didYouMean(name string, names []string) string {
	if better := schema.Nearest(name, names); better != "" {
		return ": did you mean " + better + "?"
	}
	return ""
}

// A program is a compiled expression.
type program struct {
	cel.Program
	buildsRegex bool // compiles regular expressions when it is evaluated
}

// compile compiles an expression. Mistakes are at offset plus their own in the text.
// accept returns why a type is wrong, or "".
func compile(env *cel.Env, text, in string, offset int, accept func(*cel.Type) string) (*program, []Mistake) {
	tree, issues := env.Parse(text)
	parsed := tree
	if issues.Err() == nil {
		tree, issues = env.Check(parsed)
	}
	if issues.Err() != nil {
		var wrong []Mistake
		for _, e := range issues.Errors() {
			at := lineOffset(text, e.Location.Line(), e.Location.Column())
			wrong = append(wrong, Mistake{in, offset + at, strings.TrimPrefix(e.Message, "Syntax error: ") + suggestion(parsed, e.ExprID)})
		}
		return nil, wrong
	}
	if problem := accept(tree.OutputType()); problem != "" {
		return nil, []Mistake{{in, offset, problem}}
	}
	p, err := env.Program(tree, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptTrackCost))
	if err != nil {
		return nil, []Mistake{{in, offset, err.Error()}}
	}
	return &program{p, buildsRegex(tree)}, nil
}

// suggestion returns a suggestion for a misspelt field, if the expression with this ID
// selects an unknown one, or "".
func suggestion(parsed *cel.Ast, id int64) (text string) {
	if parsed == nil { // a syntax error
		return ""
	}
	var names []string
	for _, c := range classes {
		names = append(names, fieldNames(c)...)
	}
	ast.PreOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.ID() == id && e.Kind() == ast.SelectKind && !slices.Contains(names, e.AsSelect().FieldName()) {
			text = didYouMean(e.AsSelect().FieldName(), names)
		}
	}))
	return text
}

// buildsRegex reports whether an expression has a regular expression that is not a literal.
func buildsRegex(tree *cel.Ast) bool {
	calls := ast.MatchDescendants(ast.NavigateAST(tree.NativeRep()), ast.FunctionMatcher(overloads.Matches))
	return slices.ContainsFunc(calls, func(e ast.NavigableExpr) bool {
		args := e.AsCall().Args()
		return args[len(args)-1].Kind() != ast.LiteralKind
	})
}

// lineOffset returns the offset in bytes of a line and a column, which is in
// characters from 0.
func lineOffset(text string, line, column int) int {
	offset := 0
	for l := range strings.Lines(text) {
		if line--; line > 0 {
			offset += len(l)
			continue
		}
		for i := range l {
			if column == 0 {
				return offset + i
			}
			column--
		}
		return offset + len(l)
	}
	return offset
}

// A rule is a compiled rule.
type rule struct {
	spec    Spec
	class   *class
	holds   *program
	message []part
}

// A part of a message is a text or an expression.
type part struct {
	text    string
	program *program
}

// parseMessage compiles the expressions in a message.
func parseMessage(env *cel.Env, message string) (parts []part, wrong []Mistake) {
	rest := 0
	for {
		start := strings.Index(message[rest:], "${")
		if start < 0 {
			return append(parts, part{text: message[rest:]}), wrong
		}
		start += rest
		end := expressionEnd(message, start+2)
		if end < 0 {
			return nil, append(wrong, Mistake{"message", start, "missing } after ${"})
		}
		p, more := compile(env, message[start+2:end], "message", start+2, func(t *cel.Type) string {
			switch t.Kind() {
			case types.StringKind, types.IntKind, types.UintKind, types.DoubleKind, types.BoolKind, types.TimestampKind, types.DurationKind, types.DynKind:
				return ""
			}
			return fmt.Sprintf("a message takes texts, numbers and times, not a value of type %s: use a field of it, or join()", typeName(t))
		})
		wrong = append(wrong, more...)
		parts = append(parts, part{text: message[rest:start]}, part{program: p})
		rest = end + 1
	}
}

// expressionEnd returns the offset of the "}" that ends an expression, or -1.
func expressionEnd(text string, start int) int {
	depth := 0
	var quote byte
	for i := start; i < len(text); i++ {
		switch b := text[i]; {
		case quote != 0 && b == '\\':
			i++
		case quote != 0:
			if b == quote {
				quote = 0
			}
		case b == '"' || b == '\'':
			quote = b
		case b == '{':
			depth++
		case b == '}' && depth > 0:
			depth--
		case b == '}':
			return i
		}
	}
	return -1
}

// errCost is returned when the evaluations of a rule in a policy cost too much together, and
// errCosts when those of all rules do.
var (
	errCost  = errors.New("it costs too much for a policy of this size")
	errCosts = errors.New("the rules together cost too much for a policy of this size")
)

// check implements lint.Rule.Check.
func (r *rule) check(p *lint.Pass) {
	if !slices.ContainsFunc(p.LWS, r.spec.LWS.Has) {
		return
	}
	v, total := viewOf(p), uint64(0)
	spend := func(cost uint64) { total, v.cost = total+cost, v.cost+cost }
	eval := func(program *program, o *object) (ref.Val, error) {
		out, details, err := program.Eval(map[string]any{r.class.name: o, policyClass.name: v.root, "now": p.At})
		if details != nil && details.ActualCost() != nil {
			spend(*details.ActualCost())
		}
		if err != nil && program.buildsRegex {
			spend(maxCost) // CEL may have compiled a large one, at no cost in its model
		}
		switch {
		case v.cost > maxRules:
			err = errCosts
		case total > maxRule:
			err = errCost
		}
		return out, err
	}
	for _, o := range v.section(r.class) {
		out, err := eval(r.holds, o)
		if err == nil && out == types.True {
			continue
		}
		var text strings.Builder
		for _, part := range r.message {
			text.WriteString(part.text)
			if part.program == nil || err != nil {
				continue
			}
			var val ref.Val
			if val, err = eval(part.program, o); err == nil {
				text.WriteString(textOf(val))
			}
		}
		at := r.place(o)
		switch {
		case err != nil:
			p.Reportf(at, "the expression of the rule fails here: %s", failure(err))
		case text.Len() == 0:
			p.Reportf(at, "not true for %s: %s", describe(o), oneLine(r.spec.Expression))
		default:
			p.Reportf(at, "%s", text.String())
		}
		if errors.Is(err, errCost) || errors.Is(err, errCosts) {
			return
		}
	}
}

// failure returns why an evaluation failed.
func failure(err error) string {
	if c, ok := errors.AsType[interpreter.EvalCancelledError](err); ok && c.Cause == interpreter.CostLimitExceeded {
		return "it costs too much: it takes more than " + fmt.Sprint(maxCost) + " steps"
	}
	return err.Error()
}

func describe(o *object) string {
	if o.class == policyClass {
		return "the policy"
	}
	return o.def.String()
}

// maxValue is the maximum size of a value in a message, in bytes.
const maxValue = 200

// textOf returns a value as a text.
func textOf(v ref.Val) string {
	text := fmt.Sprint(v.Value())
	if s, ok := v.ConvertToType(types.StringType).(types.String); ok {
		text = string(s)
	}
	if len(text) > maxValue {
		text = strings.ToValidUTF8(text[:maxValue], "") + "…"
	}
	return text
}

// place returns where a finding about an object is.
func (r *rule) place(o *object) schema.Span {
	if r.spec.At != "" {
		if s := o.setting(fields()[r.class][r.spec.At].key.Name); s != nil {
			return s.Member.Value.Span
		}
	}
	if o.class == policyClass {
		at := o.def.Value.Span
		at.End = min(at.End, at.Start+1)
		return at
	}
	return o.def.NameSpan
}
