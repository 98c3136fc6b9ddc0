package codegen

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/dave/jennifer/jen"
)

// A stencil is formatted Go source with holes for texts. Formatting takes nearly
// all of the time of writing a large file, and most streamtypes differ only in
// texts that do not affect the layout, so each stencil is formatted once.
type stencil struct {
	parts []string // around the holes
	holes []int    // the index of the text for each hole
}

// holeMark starts and ends the identifier that stands for a hole. It is a letter
// that does not occur in the names and comments of generated files.
const holeMark = 'ꙮ'

// hole returns the identifier that stands for text i.
func hole(i int) string { return string(holeMark) + strconv.Itoa(i) + string(holeMark) }

// stencils holds the stencils of a file, by the properties that determine them.
type stencils struct {
	file  *jen.File // gets the imports
	byKey map[string]*stencil
}

// write fills a stencil with texts. draw returns its code; key must hold all
// properties that the code depends on. cut returns the relevant part of the
// formatted code.
func (s *stencils) write(out *bytes.Buffer, key string, texts []string, draw func() *jen.Statement, cut func(string) string) error {
	st := s.byKey[key]
	if st == nil {
		var b bytes.Buffer
		if err := draw().RenderWithFile(&b, s.file); err != nil {
			return err
		}
		var err error
		if st, err = newStencil(cut(b.String())); err != nil {
			return err
		}
		s.byKey[key] = st
	}
	for i, part := range st.parts {
		out.WriteString(part)
		if i < len(st.holes) {
			out.WriteString(texts[st.holes[i]])
		}
	}
	return nil
}

func newStencil(text string) (*stencil, error) {
	s := &stencil{}
	for i, part := range strings.Split(text, string(holeMark)) {
		if i%2 == 0 {
			s.parts = append(s.parts, part)
			continue
		}
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, fmt.Errorf("a stencil has the hole %q", part)
		}
		s.holes = append(s.holes, n)
	}
	return s, nil
}
