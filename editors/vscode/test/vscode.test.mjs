// Tests the packaged extension in VS Code, which code-server serves to chromium.
// CODE_SERVER is the entry.js of code-server, SSPOLICY the program, SHOTS a folder for
// screenshots.
import assert from "node:assert/strict"
import {spawn, spawnSync} from "node:child_process"
import {mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from "node:fs"
import {tmpdir} from "node:os"
import {join} from "node:path"
import {after, before, test} from "node:test"
import {chromium} from "playwright-core"

const port = 8131
const home = mkdtempSync(join(tmpdir(), "sspolicy-"))
const folder = join(home, "project")
const file = join(folder, "weather-ss-policy.json")
const dirs = ["--user-data-dir", join(home, "data"), "--extensions-dir", join(home, "extensions")]
const env = {...process.env, HOME: home}
let server, browser, page

before(async () => {
  mkdirSync(folder)
  mkdirSync(join(home, "data/Machine"), {recursive: true})
  writeFileSync(join(home, "data/Machine/settings.json"), JSON.stringify({"sspolicy.path": process.env.SSPOLICY, "editor.minimap.enabled": false}))
  writeFileSync(file, readFileSync(new URL("../../../fixtures/weather.json", import.meta.url), "utf8").replace('"port": 443', '"port": 70443'))
  writeFileSync(join(folder, "staging.json"), `{"x-sspolicy": {"base": "weather-ss-policy.json"}, "s": [{"get_weather": {"port": 8443}}]}`)
  const vsix = new URL("../sspolicy.vsix", import.meta.url).pathname
  const installed = spawnSync(process.execPath, [process.env.CODE_SERVER, ...dirs, "--install-extension", vsix], {env, encoding: "utf8"})
  assert.match(installed.stdout, /successfully installed/, installed.stderr)
  server = spawn(process.execPath, [process.env.CODE_SERVER, ...dirs, "--auth", "none", "--disable-workspace-trust", "--bind-addr", `127.0.0.1:${port}`], {env})
  await new Promise((resolve, reject) => {
    server.stdout.on("data", (text) => { if (String(text).includes("listening")) resolve() })
    server.on("exit", (code) => reject(new Error(`code-server ends with ${code}`)))
  })
  browser = await chromium.launch({executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"]})
  page = await (await browser.newContext({viewport: {width: 1280, height: 800}})).newPage()
  page.setDefaultTimeout(60_000)
  const open = JSON.stringify([["openFile", `vscode-remote://127.0.0.1:${port}${file}`]])
  await page.goto(`http://127.0.0.1:${port}/?folder=${folder}&payload=${encodeURIComponent(open)}`)
})

after(async () => {
  await browser?.close()
  server?.removeAllListeners("exit")
  server?.kill()
  rmSync(home, {recursive: true, force: true, maxRetries: 5, retryDelay: 200})
})

const line = (text) => page.locator(".view-line", {hasText: text})

async function shoot(name) {
  if (process.env.SHOTS) await page.screenshot({path: join(process.env.SHOTS, `vscode-${name}.png`)})
}

// place moves the cursor to a line and a column.
async function place(row, column) {
  await page.keyboard.press("Control+g")
  await page.locator(".quick-input-widget input[type=text]").fill(`:${row}:${column}`)
  await page.keyboard.press("Enter")
}

// saved saves the file, and returns its text once it matches a pattern.
async function saved(pattern) {
  await page.keyboard.press("Control+s")
  for (let i = 0; i < 200; i++) {
    const text = readFileSync(file, "utf8")
    if (pattern.test(text)) return text
    await page.waitForTimeout(50)
  }
  assert.match(readFileSync(file, "utf8"), pattern)
}

// at returns the line and column of a text in the file.
function at(text) {
  const before = readFileSync(file, "utf8").split(text)[0].split("\n")
  return [before.length, before.at(-1).length + 1]
}

test("a mistake is marked", async () => {
  await page.locator(".squiggly-error").first().waitFor()
  await page.locator("#status\\.editor\\.mode", {hasText: "Secure Streams policy"}).waitFor()
  await shoot("mistake")
})

test("hover explains a key", async () => {
  await line('"protocol"').locator("span span", {hasText: "protocol"}).first().hover()
  await page.locator(".monaco-hover", {hasText: "Protocol of the connection"}).first().waitFor()
  await shoot("hover")
})

test("lenses run a streamtype and show its overlays", async () => {
  await page.locator(".codelens-decoration a", {hasText: "Run"}).waitFor()
  await page.locator(".codelens-decoration a", {hasText: "1 overlay"}).waitFor()
})

test("correcting the mistake removes the mark", async () => {
  await place(...at("70443"))
  for (let i = 0; i < 2; i++) await page.keyboard.press("Delete")
  await saved(/"port": 443/)
  await page.locator(".squiggly-error").first().waitFor({state: "detached"})
})

test("a key is completed", async () => {
  const [row] = at('"opportunistic"')
  await place(row, 1)
  await page.keyboard.press("Enter")
  await page.keyboard.press("ArrowUp")
  await page.keyboard.type('"time')
  await page.locator(".suggest-widget .monaco-list-row", {hasText: "timeout_ms"}).waitFor()
  await shoot("completion")
  await page.keyboard.press("Enter")
  await page.keyboard.type("5000")
  await saved(/"timeout_ms": 5000,/)
})

test("a misspelt key has a quick fix", async () => {
  const [row, column] = at('opportunistic"')
  await place(row, column + "opportunistic".length)
  await page.keyboard.press("Backspace")
  await page.locator(".squiggly-error").first().waitFor()
  await page.keyboard.press("Control+.")
  await page.locator(".action-widget", {hasText: "Write opportunistic"}).waitFor()
  await shoot("fix")
  await page.keyboard.press("Enter")
  await saved(/"opportunistic": true/)
})

test("a trust store is renamed", async () => {
  const [row, column] = at('fixture",\n')
  await place(row, column + 1)
  await page.keyboard.press("F2")
  await page.locator(".rename-box input").fill("roots")
  await page.keyboard.press("Enter")
  const text = await saved(/"tls_trust_store": "roots"/)
  assert.match(text, /"name": "roots"/)
})
