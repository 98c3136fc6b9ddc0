//go:build js && wasm

// Command wasm is package playground for a web worker. It sets the function sspolicy,
// which takes a request and returns the response, and then calls sspolicyReady.
package main

import (
	"syscall/js"

	"github.com/secure-streams/sspolicy/internal/playground"
)

func main() {
	js.Global().Set("sspolicy", js.FuncOf(func(_ js.Value, args []js.Value) any {
		return playground.Answer(args[0].String())
	}))
	js.Global().Call("sspolicyReady")
	select {}
}
