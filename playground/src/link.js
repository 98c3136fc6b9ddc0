// A link carries the input in its fragment, which browsers do not send: "1." and the
// deflated JSON in base64url. A link may be hostile: its strings have limited length, and
// its choices are checked against those of the page.

export const maxText = 1 << 20 // UTF-16 code units of all texts
const maxLink = 2 << 20

export async function encode(state) {
  const json = new Blob([JSON.stringify(state)]).stream()
  const packed = await new Response(json.pipeThrough(new CompressionStream("deflate-raw"))).arrayBuffer()
  let binary = ""
  for (const byte of new Uint8Array(packed)) binary += String.fromCharCode(byte)
  return "1." + btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")
}

// decode returns the strings of a link by name, or throws an Error.
export async function decode(fragment) {
  const match = /^1\.([A-Za-z0-9_-]+)$/.exec(fragment)
  if (!match || fragment.length > maxLink) throw new Error("This is not a link of this page.")
  let text
  try {
    const binary = atob(match[1].replaceAll("-", "+").replaceAll("_", "/"))
    const packed = Uint8Array.from(binary, (c) => c.charCodeAt(0))
    text = await inflate(packed)
  } catch (err) {
    throw err instanceof TooLarge ? err : new Error("The link is damaged.")
  }
  let values
  try {
    values = JSON.parse(text)
  } catch {
    throw new Error("The link is damaged.")
  }
  const state = {}
  for (const key of ["policy", "fragment", "lws", "view"]) {
    const value = values !== null && Object.hasOwn(Object(values), key) ? values[key] : ""
    state[key] = typeof value === "string" ? value : ""
  }
  if (state.policy.length + state.fragment.length > maxText) throw new TooLarge()
  return state
}

class TooLarge extends Error {
  constructor() {
    super("The text in the link is too large.")
  }
}

// inflate stops at the limit, since a small link can hold a large text.
async function inflate(packed) {
  const reader = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader()
  const decoder = new TextDecoder()
  let text = ""
  for (;;) {
    const {done, value} = await reader.read()
    if (done) return text + decoder.decode()
    text += decoder.decode(value, {stream: true})
    if (text.length > 2 * maxText) { // JSON escapes some characters
      await reader.cancel()
      throw new TooLarge()
    }
  }
}
