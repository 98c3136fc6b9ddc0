package schema

// own is the key of the top-level object that holds settings for sspolicy alone.
const own Section = "x-sspolicy"

// A RawItem is a metadata item whose values are inserted into topics and URLs
// unescaped, as the setting "metadata" of x-sspolicy requests.
type RawItem struct {
	Stream, Item         string
	StreamSpan, ItemSpan Span // of the names in x-sspolicy
}

// RawItems returns the items that x-sspolicy declares raw, in the order of the
// text. They may be absent from the metadata of the streamtype.
func (p *Policy) RawItems() []RawItem {
	var items []RawItem
	for _, s := range p.Settings {
		if s.Member.Key != string(own) {
			continue
		}
		items = nil // the last one counts
		for _, group := range s.Member.Value.Members() {
			if group.Key != "streams" {
				continue
			}
			for _, stream := range group.Value.Members() {
				for _, setting := range stream.Value.Members() {
					if setting.Key != "metadata" {
						continue
					}
					for _, item := range setting.Value.Members() {
						if item.Value.Kind == String && item.Value.Text() == "raw" {
							items = append(items, RawItem{stream.Key, item.Key, stream.Name.Span, item.Name.Span})
						}
					}
				}
			}
		}
	}
	return items
}
