// Tests the built page in chromium: make playground-test.
import assert from "node:assert/strict"
import {test} from "node:test"
import {deflateRawSync} from "node:zlib"
import {Engine} from "../src/engine.js"
import {load, shoot} from "./chromium.mjs"

// open opens the page and waits for its first answers.
async function open(t, link = "", options = {}) {
  const page = await load(t, "playground/" + link, options)
  await page.waitForFunction(() => performance.getEntriesByName("view").length > 0)
  return page
}

const summary = (page, text) => page.locator("#summary", {hasText: text}).waitFor()
const finding = (page, rule) => page.locator("#list li", {hasText: `[${rule}]`})
const policyText = (page) => page.evaluate(() => document.getElementById("policy").shadowRoot.querySelector(".cm-content").innerText)
const hash = (state) => "#1." + deflateRawSync(JSON.stringify(state)).toString("base64url")

async function type(page, text, editor = "#policy") {
  await page.locator(`${editor} .cm-content`).click()
  await page.keyboard.press("Control+a")
  await page.keyboard.insertText(text)
}

const right = `{"s": [{"a": {"endpoint": "a.example.com", "port": 80, "protocol": "h1", "http_method": "GET", "http_url": "x"}}]}`

test("a mistake that is typed is found, marked and fixed", async (t) => {
  const page = await open(t)
  await type(page, right.replace('"port"', '"prot"'))
  await finding(page, "unknown-key").waitFor()
  await page.locator("#policy .cm-lintRange-error, #policy .cm-lintRange-warning").first().waitFor()
  await finding(page, "unknown-key").getByRole("button", {name: /^Fix/}).click()
  await summary(page, "No findings").catch(() => summary(page, /warning|info/))
  assert.match(await policyText(page), /"port"/)
  await page.keyboard.press("Control+z")
  await finding(page, "unknown-key").waitFor()
})

test("first findings", async (t) => {
  const times = []
  for (let i = 0; i < 3; i++) {
    const page = await open(t)
    times.push(await page.evaluate(() => Math.round(performance.getEntriesByName("findings")[0].startTime)))
  }
  t.diagnostic(`first findings after ${times.join(", ")} ms`)
})

test("tabs, by keyboard alone", async (t) => {
  const page = await open(t)
  await page.locator("#example").selectOption("a policy that is right")
  await page.locator("#tab-c").focus()
  for (const [view, shows] of [["c", "#output"], ["go", "#output"], ["graph", "#pictures img"], ["footprint", "#table table"], ["overlay", "#overlay"], ["retry", "#pictures img"]]) {
    await page.locator(`#tab-${view}[aria-selected=true]`).waitFor()
    await page.locator(shows).first().waitFor({state: "visible"})
    await shoot(page, `1280-${view}`)
    await page.keyboard.press("ArrowRight")
  }
  await page.locator("#tab-c[aria-selected=true]").waitFor()
  await page.locator("#output .cm-line", {hasText: "#include <libwebsockets.h>"}).first().waitFor()
  await page.keyboard.press("ArrowRight")
  await page.locator("#output .cm-line", {hasText: "package policy"}).waitFor()
})

test("everything is reached with the tab key", async (t) => {
  const page = await open(t)
  const seen = new Set()
  for (let i = 0; i < 60 && !seen.has("policy"); i++) {
    await page.keyboard.press("Tab")
    seen.add(await page.evaluate(() => document.activeElement.id))
  }
  for (const id of ["example", "lws", "fix", "format", "share", "policy"]) assert.ok(seen.has(id), `${id} is not among ${[...seen]}`)
  await page.keyboard.press("F8")
  await page.keyboard.press("Escape")
  await page.keyboard.press("Tab")
  assert.notEqual(await page.evaluate(() => document.activeElement.id), "policy")
})

test("fix all and format", async (t) => {
  const page = await open(t)
  await finding(page, "unknown-key").waitFor()
  await page.locator("#fix").click()
  await finding(page, "unknown-key").waitFor({state: "detached"})
  await type(page, right)
  await page.locator("#format").click()
  await page.locator("#policy .cm-line").nth(3).waitFor()
})

test("a fragment", async (t) => {
  const page = await open(t)
  await page.locator("#example").selectOption("a fragment over it")
  await page.locator("#table td", {hasText: "staging.weather.example.com"}).waitFor()
  await page.locator("#output .cm-line", {hasText: /^\+.*8443/}).waitFor()
  await type(page, `{"s": [{"get_weather": {"prt": 1}}]}`, "#fragment")
  await finding(page, "unknown-key").waitFor()
  await finding(page, "unknown-key").locator(".place").click()
  assert.equal(await page.evaluate(() => document.activeElement.id), "fragment")
})

test("a link carries the input", async (t) => {
  const page = await open(t)
  await page.locator("#tab-go").click()
  await page.locator("#lws").selectOption("4.3")
  await type(page, right.replace("a.example.com", "é😀.example.com"))
  await page.waitForFunction((old) => location.hash.length > 3 && location.hash !== old, await page.evaluate(() => location.hash))
  await page.locator("#output .cm-line", {hasText: "😀"}).first().waitFor()
  const link = await page.evaluate(() => location.hash)
  const other = await open(t, link)
  assert.equal(await policyText(other), await policyText(page))
  assert.equal(await other.locator("#lws").inputValue(), "4.3")
  await other.locator("#tab-go[aria-selected=true]").waitFor()
})

test("a hostile link", async (t) => {
  const html = `<img src=x onerror=alert(1)><script>alert(2)</script>`
  const name = `"></text><script>alert(3)</script>`
  const text = JSON.stringify({retry: [{[name]: {backoff: [1000], conceal: 3}}], s: [{[html]: {endpoint: html, port: 1, protocol: "h1", http_method: html, [html]: 1, retry: name}}]})
  for (const view of ["c", "go", "graph", "footprint", "overlay", "retry", "__proto__"]) {
    const page = await open(t, hash({policy: text, fragment: text, view, lws: html}))
    await page.locator("#list li").first().waitFor()
    assert.equal(await page.locator("main img[src=x], main script").count(), 0)
  }
})

test("damaged and oversized links", async (t) => {
  for (const [link, says] of [
    ["#1.AAAA", "damaged"], ["#<b>", "not a link"], ["#1.!", "not a link"],
    ["#1." + deflateRawSync("null").toString("base64url"), ""],
    [hash({policy: 1, fragment: {}, view: [], lws: null}), ""],
    ["#1." + deflateRawSync(Buffer.alloc(200 << 20, 0x20)).toString("base64url"), "too large"],
    [hash({policy: "[".repeat(1_100_000)}), "too large"],
  ]) {
    const page = await open(t, link)
    if (says) await page.locator("#notice", {hasText: says}).waitFor()
  }
})

test("a worker that takes too long is ended", async () => {
  const workers = []
  const engine = new Engine(() => {
    const worker = {
      ended: false,
      terminate() { this.ended = true },
      postMessage(text) {
        const {view} = JSON.parse(text)
        if (view !== "slow") queueMicrotask(() => this.onmessage({data: {response: JSON.stringify({text: view})}}))
      },
    }
    workers.push(worker)
    queueMicrotask(() => worker.onmessage({data: {ready: true}}))
    return worker
  }, 20)
  assert.deepEqual(await engine.ask("a", {view: "quick"}), {text: "quick"})
  const slow = engine.ask("a", {view: "slow"})
  const next = engine.ask("b", {view: "next"})
  await assert.rejects(slow, /took longer than 0.02 s/)
  assert.deepEqual(await next, {text: "next"})
  assert.deepEqual(workers.map((w) => w.ended), [true, false])
})

test("offline", async (t) => {
  const page = await open(t)
  await page.evaluate(() => navigator.serviceWorker.ready)
  await page.waitForFunction(() => navigator.serviceWorker.controller)
  await page.context().setOffline(true)
  await page.reload()
  await finding(page, "unknown-key").waitFor()
})

test("dark mode and narrow screens", async (t) => {
  const dark = await open(t, "", {colorScheme: "dark"})
  const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
  const light = await open(t)
  assert.notEqual(await background(dark), await background(light))
  const narrow = await open(t, "", {viewport: {width: 390, height: 844}})
  assert.ok(await narrow.evaluate(() => document.documentElement.scrollWidth) <= 390)
  await shoot(dark, "1280-dark")
  await shoot(light, "1280-light")
  await shoot(narrow, "390", {fullPage: true})
  await narrow.locator("#example").selectOption("a fragment over it")
  await narrow.locator("#table td").first().waitFor()
  await shoot(narrow, "390-overlay", {fullPage: true})
})
