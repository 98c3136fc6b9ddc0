// Sends the messages of the extension to the server, with VS Code's protocol library.
// SSPOLICY is the program.
import assert from "node:assert/strict"
import {spawn} from "node:child_process"
import {mkdtempSync, readFileSync, rmSync, writeFileSync} from "node:fs"
import {tmpdir} from "node:os"
import {join} from "node:path"
import {after, test} from "node:test"
import {pathToFileURL} from "node:url"
import protocol from "vscode-languageserver-protocol/node"

const {
  CodeActionRequest, CodeLensRequest, CompletionRequest, createProtocolConnection, DidChangeConfigurationNotification,
  DidChangeTextDocumentNotification, DidOpenTextDocumentNotification, DocumentFormattingRequest, ExitNotification, HoverRequest,
  InitializedNotification, InitializeRequest, PublishDiagnosticsNotification, RenameRequest, ShutdownRequest,
} = protocol

const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"))
const folder = mkdtempSync(join(tmpdir(), "sspolicy-"))
const file = join(folder, "ss-policy.json")
const uri = pathToFileURL(file).href
const right = readFileSync(new URL("../../../fixtures/weather.json", import.meta.url), "utf8")
writeFileSync(file, right)
writeFileSync(join(folder, "staging.json"), `{"x-sspolicy": {"base": "ss-policy.json"}, "s": [{"get_weather": {"port": 8443}}]}`)

const server = spawn(process.env.SSPOLICY ?? "sspolicy", ["lsp"], {stdio: ["pipe", "pipe", "inherit"]})
const connection = createProtocolConnection(server.stdout, server.stdin)
const exited = new Promise((resolve) => server.on("exit", resolve))
const textDocument = {uri}
let text = right
let version = 1
let waiting = []

after(() => {
  server.kill()
  rmSync(folder, {recursive: true})
})

connection.onNotification(PublishDiagnosticsNotification.type, (p) => {
  if (p.uri !== uri || p.version !== version) return
  waiting = waiting.filter(({ok, resolve}) => !ok(p.diagnostics) || resolve(p.diagnostics))
})
connection.listen()

// rules waits until the findings of the current version are exactly of these rules.
function rules(...want) {
  return new Promise((resolve) => waiting.push({
    ok: (found) => JSON.stringify(found.map((d) => d.code).sort()) === JSON.stringify(want.sort()), resolve,
  }))
}

function position(offset) {
  const before = text.slice(0, offset).split("\n")
  return {line: before.length - 1, character: before.at(-1).length}
}

const at = (word) => position(text.indexOf(word) + 1)

// change replaces a word, as if typed.
async function change(old, fresh) {
  const start = text.indexOf(old)
  const range = {start: position(start), end: position(start + old.length)}
  text = text.slice(0, start) + fresh + text.slice(start + old.length)
  version++
  await connection.sendNotification(DidChangeTextDocumentNotification.type, {textDocument: {uri, version}, contentChanges: [{range, text: fresh}]})
}

// apply applies edits to the text and sends them.
async function apply(edits) {
  const offset = ({line, character}) => text.split("\n").slice(0, line).reduce((n, l) => n + l.length + 1, 0) + character
  for (const e of edits.toSorted((a, b) => offset(b.range.start) - offset(a.range.start))) {
    version++
    text = text.slice(0, offset(e.range.start)) + e.newText + text.slice(offset(e.range.end))
    await connection.sendNotification(DidChangeTextDocumentNotification.type, {textDocument: {uri, version}, contentChanges: [{range: e.range, text: e.newText}]})
  }
}

test("initialize as the extension does", {timeout: 30_000}, async () => {
  const {capabilities, serverInfo} = await connection.sendRequest(InitializeRequest.type, {
    processId: process.pid, rootUri: pathToFileURL(folder).href,
    capabilities: {textDocument: {publishDiagnostics: {versionSupport: true}}},
    initializationOptions: {lws: [], commands: ["sspolicy.run", "sspolicy.overlays"]},
  })
  assert.equal(serverInfo.name, "sspolicy")
  assert.ok(capabilities.codeLensProvider)
  await connection.sendNotification(InitializedNotification.type, {})
})

test("a mistake is found while typing, and fixed", {timeout: 30_000}, async () => {
  let found = rules()
  await connection.sendNotification(DidOpenTextDocumentNotification.type, {textDocument: {uri, languageId: "sspolicy", version, text}})
  await found
  found = rules("unknown-key")
  await change(`"opportunistic"`, `"oportunistic"`)
  const [diagnostic] = await found
  const actions = await connection.sendRequest(CodeActionRequest.type, {textDocument, range: diagnostic.range, context: {diagnostics: [diagnostic], only: ["quickfix"]}})
  found = rules()
  await apply(actions.find((a) => a.isPreferred).edit.changes[uri])
  await found
  assert.equal(text, right)
})

test("fix all, by the command's kind", {timeout: 30_000}, async () => {
  let found = rules("unknown-key")
  await change(`"opportunistic"`, `"oportunistic"`)
  await found
  const everything = {start: {line: 0, character: 0}, end: position(text.length)}
  const [action] = await connection.sendRequest(CodeActionRequest.type, {textDocument, range: everything, context: {diagnostics: [], only: ["source.fixAll.sspolicy"]}})
  found = rules()
  await apply(action.edit.changes[uri])
  await found
  assert.equal(text, right)
})

test("completion, hover, formatting", {timeout: 30_000}, async () => {
  const items = await connection.sendRequest(CompletionRequest.type, {textDocument, position: at(`"opportunistic"`)})
  assert.ok(items.some((i) => i.label === "nailed_up"))
  const hover = await connection.sendRequest(HoverRequest.type, {textDocument, position: at(`"port"`)})
  assert.match(hover.contents.value, /port/)
  await change(`"port": 443`, `"port":   443`)
  await apply(await connection.sendRequest(DocumentFormattingRequest.type, {textDocument, options: {tabSize: 2, insertSpaces: true}}))
  assert.ok(text.includes(`"port": 443`))
})

test("renaming reaches the fragments", {timeout: 30_000}, async () => {
  const edit = await connection.sendRequest(RenameRequest.type, {textDocument, position: at(`"get_weather"`), newName: "forecast"})
  assert.deepEqual(Object.keys(edit.changes).sort(), [uri, pathToFileURL(join(folder, "staging.json")).href].sort())
})

test("lenses invoke commands of the extension", {timeout: 30_000}, async () => {
  const lenses = await connection.sendRequest(CodeLensRequest.type, {textDocument})
  assert.deepEqual(lenses.map((l) => l.command.title), ["Run", "1 overlay"])
  const commands = manifest.contributes.commands.map((c) => c.command)
  for (const {command} of lenses) assert.ok(commands.includes(command.command))
  assert.deepEqual(lenses[0].command.arguments, [uri, "get_weather"])
})

test("the setting of lws versions", {timeout: 30_000}, async () => {
  const settings = (lws) => connection.sendNotification(DidChangeConfigurationNotification.type, {settings: {sspolicy: {lws}}})
  await change(`"port": 443`, `"port": 443, "direct_proto_str": true`)
  let found = new Promise((resolve) => waiting.push({ok: (ds) => ds.some((d) => d.code === "unsupported-version"), resolve}))
  await settings(["4.1"])
  await found
  found = rules()
  await settings([])
  await found
  assert.deepEqual(Object.keys(manifest.contributes.configuration.properties).sort(), ["sspolicy.lws", "sspolicy.path", "sspolicy.trace.server"])
})

test("shutdown", {timeout: 30_000}, async () => {
  await connection.sendRequest(ShutdownRequest.type)
  await connection.sendNotification(ExitNotification.type)
  assert.equal(await exited, 0)
})
