package codegen

import (
	"strings"

	"github.com/dave/jennifer/jen"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

// describe returns what a client of a proxy needs to know about the streamtypes
// that it can use: protocol, metadata and rideshares. originals are the streamtypes
// described, in order. Servers are left out, since a proxy does not serve them.
func describe(p *policy.Policy) (description *policy.Policy, originals []*policy.StreamType) {
	description = &policy.Policy{Release: p.Release, Product: p.Product}
	for _, st := range p.StreamTypes {
		if st.Server {
			continue
		}
		d := &policy.StreamType{Name: st.Name, Protocol: st.Protocol, Opportunistic: st.Opportunistic, Rideshare: st.Rideshare, DirectProtoStr: st.DirectProtoStr}
		if st.LocalSink {
			d.Protocol = policy.ProtocolProxied
		}
		if st.HTTP != nil && d.Protocol.IsHTTP() {
			d.HTTP = &policy.HTTP{Method: st.HTTP.Method, Multipart: st.HTTP.Multipart || st.HTTP.MultipartName != ""}
		}
		for _, m := range st.Metadata {
			item := policy.Metadata{Name: m.Name}
			if strings.EqualFold(strings.TrimSuffix(m.Header, ":"), "content-length") {
				item.Header = m.Header // it makes the streamtype one that sends; see Sends
			}
			d.Metadata = append(d.Metadata, item)
		}
		description.StreamTypes = append(description.StreamTypes, d)
		originals = append(originals, st)
	}
	return description, originals
}

// proxiedContext writes NewContext for streams that a proxy executes.
func (g *goFile) proxiedContext(f *jen.File) {
	const sspcPath = runtimePath + "/sspc"
	f.Line().Comment("NewContext returns a context whose streams a Secure Streams proxy executes: o.Proxy,")
	f.Comment("or if that is nil the one at sspc.DefaultAddress.")
	f.Func().Id("NewContext").Params(jen.Id("o").Qual(runtimePath, "Options")).
		Params(jen.Op("*").Qual(runtimePath, "Context"), jen.Error()).
		Block(
			jen.If(jen.Id("o").Dot("Proxy").Op("==").Nil()).Block(
				jen.Id("o").Dot("Proxy").Op("=").Qual(sspcPath, "Default").Call(),
			),
			jen.Return(jen.Qual(runtimePath, "NewContext").Call(jen.Id("Policy"), jen.Id("o"))),
		)
}
