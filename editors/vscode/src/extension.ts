import * as path from "node:path"
import * as vscode from "vscode"
import {LanguageClient, type LanguageClientOptions, type ServerOptions, Trace} from "vscode-languageclient/node"

const languages = ["sspolicy", "json", "jsonc", "c", "cpp"]

let client: LanguageClient | undefined

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  context.subscriptions.push(
    vscode.commands.registerCommand("sspolicy.restart", restart),
    vscode.commands.registerCommand("sspolicy.fixAll", fixAll),
    vscode.commands.registerCommand("sspolicy.explain", explain),
    vscode.commands.registerCommand("sspolicy.run", run),
    vscode.commands.registerCommand("sspolicy.overlays", overlays),
    vscode.workspace.onDidChangeConfiguration(async (event) => {
      if (event.affectsConfiguration("sspolicy.path")) await restart()
      else if (event.affectsConfiguration("sspolicy")) await configure()
    }),
  )
  await start()
}

export async function deactivate(): Promise<void> {
  await client?.stop()
}

function program(): string {
  return vscode.workspace.getConfiguration("sspolicy").get("path", "sspolicy") || "sspolicy"
}

function settings() {
  return {lws: vscode.workspace.getConfiguration("sspolicy").get<string[]>("lws", [])}
}

async function start(): Promise<void> {
  const server: ServerOptions = {command: program(), args: ["lsp"]}
  const options: LanguageClientOptions = {
    documentSelector: languages.map((language) => ({language, scheme: "file"})),
    initializationOptions: {...settings(), commands: ["sspolicy.run", "sspolicy.overlays"]},
    outputChannelName: "sspolicy",
  }
  client = new LanguageClient("sspolicy", "sspolicy", server, options)
  try {
    await client.start()
  } catch (err) {
    const choose = "Choose the program…"
    const answer = await vscode.window.showErrorMessage(`"${program()} lsp" does not start: ${err}. Install sspolicy, or set sspolicy.path.`, choose)
    if (answer === choose) await vscode.commands.executeCommand("workbench.action.openSettings", "sspolicy.path")
    return
  }
  const trace = vscode.workspace.getConfiguration("sspolicy").get("trace.server", "off")
  await client.setTrace(Trace.fromString(trace))
}

async function restart(): Promise<void> {
  const old = client
  client = undefined
  await old?.stop().catch(() => {}) // it may not have started
  await start()
}

async function configure(): Promise<void> {
  await client?.sendNotification("workspace/didChangeConfiguration", {settings: {sspolicy: settings()}})
}

async function fixAll(): Promise<void> {
  await vscode.commands.executeCommand("editor.action.codeAction", {kind: "source.fixAll.sspolicy", apply: "first"})
}

// inTerminal runs sspolicy in a terminal panel. The arguments bypass the shell, since names
// of streamtypes may contain any character.
async function inTerminal(name: string, args: string[], cwd?: string): Promise<void> {
  const task = new vscode.Task({type: "sspolicy", name}, vscode.TaskScope.Workspace, name, "sspolicy", new vscode.ProcessExecution(program(), args, {cwd}))
  task.presentationOptions = {reveal: vscode.TaskRevealKind.Always, panel: vscode.TaskPanelKind.Dedicated}
  await vscode.tasks.executeTask(task)
}

async function explain(): Promise<void> {
  const editor = vscode.window.activeTextEditor
  if (!editor) return
  const here = vscode.languages.getDiagnostics(editor.document.uri)
    .find((d) => d.source === "sspolicy" && d.range.intersection(editor.selection) !== undefined)
  const rule = here?.code
  if (typeof rule !== "string") {
    await vscode.window.showInformationMessage("There is no finding of sspolicy at the cursor.")
    return
  }
  await inTerminal(`explain ${rule}`, ["explain", rule])
}

async function run(uri: string, streamtype: string): Promise<void> {
  const file = vscode.Uri.parse(uri).fsPath
  const document = vscode.workspace.textDocuments.find((d) => d.uri.toString() === vscode.Uri.parse(uri).toString())
  if (document?.isDirty && !await document.save()) return
  await inTerminal(`run ${streamtype}`, ["run", "--", file, streamtype], path.dirname(file))
}

interface Position {line: number, character: number}
interface Location {uri: string, range: {start: Position, end: Position}}

async function overlays(uri: string, position: Position, locations: Location[]): Promise<void> {
  const at = (p: Position) => new vscode.Position(p.line, p.character)
  await vscode.commands.executeCommand("editor.action.showReferences", vscode.Uri.parse(uri), at(position),
    locations.map((l) => new vscode.Location(vscode.Uri.parse(l.uri), new vscode.Range(at(l.range.start), at(l.range.end)))))
}
