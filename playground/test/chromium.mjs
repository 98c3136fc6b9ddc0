// Runs chromium on a folder served as by a static host.
import assert from "node:assert/strict"
import {existsSync, mkdirSync} from "node:fs"
import {dirname, join, resolve} from "node:path"
import {after, before} from "node:test"
import {fileURLToPath} from "node:url"
import {chromium} from "playwright-core"
import {serve} from "./server.mjs"

const site = resolve(dirname(fileURLToPath(import.meta.url)), "../../site")
const executablePath = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync)

let server, browser

before(async () => {
  server = await serve(site)
  browser = await chromium.launch({executablePath, args: ["--no-sandbox"]})
  if (process.env.SHOTS) mkdirSync(process.env.SHOTS, {recursive: true})
})

after(async () => {
  await browser?.close()
  await server?.close()
})

// load opens a page. It fails the test if the page logs an error or requests anything from
// another host.
export async function load(t, path, options = {}) {
  const context = await browser.newContext({viewport: {width: 1280, height: 800}, ...options})
  const page = await context.newPage()
  page.setDefaultTimeout(20_000)
  const bad = []
  page.on("console", (m) => { if (m.type() === "error") bad.push(m.text()) })
  page.on("pageerror", (err) => bad.push(String(err)))
  page.on("dialog", (dialog) => { bad.push(`dialog ${dialog.message()}`); dialog.dismiss() })
  page.on("request", (r) => { if (!r.url().startsWith(server.url) && !/^(blob|data):/.test(r.url())) bad.push(r.url()) })
  await page.goto(server.url + path)
  t.after(async () => {
    await context.close()
    assert.deepEqual(bad, [])
  })
  return page
}

// shoot takes a screenshot if SHOTS names a folder for them.
export async function shoot(page, name, options = {}) {
  if (process.env.SHOTS) await page.screenshot({path: join(process.env.SHOTS, `${name}.png`), ...options})
}
