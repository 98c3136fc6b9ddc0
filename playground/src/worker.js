// Runs package playground. The page terminates this worker if it takes too long.
import "wasm_exec"

self.sspolicyReady = () => postMessage({ready: true})
onmessage = ({data}) => {
  const response = self.sspolicy(data)
  if (typeof response === "string") postMessage({response}) // otherwise the program has ended, and start says so
}

async function start() {
  const go = new Go()
  const file = await fetch("sspolicy.bin")
  if (!file.ok) throw new Error(`sspolicy.bin: ${file.status}`)
  const program = new Response(file.body.pipeThrough(new DecompressionStream("gzip")), {headers: {"Content-Type": "application/wasm"}})
  const {instance} = await WebAssembly.instantiateStreaming(program, go.importObject)
  await go.run(instance)
  throw new Error("the program ended")
}

start().catch((err) => postMessage({failed: String(err)}))
