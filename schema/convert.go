package schema

import (
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// convert returns the JSON boolean or integer that a text unambiguously stands for
// as a value of the key, and whether there is one.
func (k *Key) convert(text string) (string, bool) {
	text = strings.TrimSpace(text)
	switch {
	case k == nil:
		return "", false
	case k.Is("boolean"):
		switch strings.ToLower(text) {
		case "true", "yes", "on", "1":
			return "true", true
		case "false", "no", "off", "0", "null", "":
			return "false", true
		}
		return "", false
	case k.Is("integer"), k.Is("array") && k.Width > 0:
		return k.integer(text)
	}
	return "", false
}

var quantity = regexp.MustCompile(`^\+?([0-9]+)\s*([a-zµ%]*)$`)

// units maps each unit of time to microseconds.
var units = map[string]int64{"us": 1, "µs": 1, "ms": 1e3, "s": 1e6, "sec": 1e6, "min": 60e6, "h": 3600e6}

// integer returns the decimal digits of an integer in another notation, if k can
// hold it.
func (k *Key) integer(text string) (string, bool) {
	if len(text) > 20 {
		return "", false
	}
	n, ok := new(big.Int), false
	if q := quantity.FindStringSubmatch(text); q != nil {
		n, ok = n.SetString(q[1], 10)
		switch unit := q[2]; {
		case unit == "", unit == k.Unit:
		case units[unit] == 0 || units[k.Unit] == 0:
			ok = false
		default:
			n.Mul(n, big.NewInt(units[unit]))
			rest := new(big.Int)
			n.QuoRem(n, big.NewInt(units[k.Unit]), rest)
			ok = ok && rest.Sign() == 0
		}
	} else if strings.HasPrefix(text, "0x") || strings.HasPrefix(text, "0X") {
		n, ok = n.SetString(text[2:], 16)
	} else if strings.ContainsAny(text, ".eE") && number.MatchString(text) && !strings.HasPrefix(text, "-") {
		_, exponent, _ := strings.Cut(strings.ToLower(text), "e")
		if e, err := strconv.Atoi(exponent); exponent != "" && (err != nil || e < -20 || e > 20) {
			return "", false
		}
		if r, exact := new(big.Rat).SetString(text); exact && r.IsInt() {
			n, ok = r.Num(), true
		}
	}
	if !ok || !k.holds(n) {
		return "", false
	}
	return n.String(), true
}

// holds reports whether n is in the range of the key.
func (k *Key) holds(n *big.Int) bool {
	least, ok := new(big.Int).SetString(k.Minimum.String(), 10)
	if ok && n.Cmp(least) < 0 {
		return false
	}
	most, ok := new(big.Int).SetString(k.Maximum.String(), 10)
	if ok {
		return n.Cmp(most) <= 0
	}
	return n.Sign() >= 0 && n.BitLen() <= k.Width
}

var placeholder = regexp.MustCompile(`@[A-Za-z_][A-Za-z0-9_]*@|^%[0-9]*l*[cdisux]$`)

// Placeholder returns the first placeholder in text, which a build or a program
// replaces before lws reads it: @NAME@, or a text that consists of one %d or %s. It
// returns "" if there is none.
func Placeholder(text string) string { return placeholder.FindString(text) }
