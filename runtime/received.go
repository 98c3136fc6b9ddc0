package runtime

import "iter"

// Received returns the names and values of the metadata items that the peer sent in the
// current or latest connection. Metadata prefers them to those that SetMetadata set.
func (s *Stream) Received() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		s.mu.Lock()
		items, values := s.t.stream.Metadata, s.meta.received()
		s.mu.Unlock()
		for i, v := range values {
			if v.Set && !yield(items[i].Name, v.Text) {
				return
			}
		}
	}
}
