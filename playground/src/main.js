import mistakes from "../../fixtures/weather-mistakes.json"
import weather from "../../fixtures/weather.json"
import staging from "../../fixtures/weather-staging.json"
import station from "../../fixtures/station.json"
import assistant from "../../fixtures/assistant.json"
import servers from "../../fixtures/servers.json"
import {Output, TextEditor} from "./editor.js"
import {Engine} from "./engine.js"
import {decode, encode} from "./link.js"

const $ = (id) => document.getElementById(id)

const examples = {
  "a policy with mistakes": {policy: mistakes},
  "a policy that is right": {policy: weather},
  "a fragment over it": {policy: weather, fragment: staging, view: "overlay"},
  "a weather station": {policy: station},
  "a voice assistant": {policy: assistant},
  "servers": {policy: servers},
}

// The tabs, by the view that they request.
const tabs = {
  c: "C",
  go: "Go",
  graph: "Picture",
  footprint: "Footprint",
  overlay: "Overlay",
  retry: "Retries",
}

// A policy allows only scripts of this site to become URLs of workers.
const scripts = globalThis.trustedTypes?.createPolicy("sspolicy", {
  createScriptURL: (url) => {
    if (url !== "worker.js" && url !== "sw.js") throw new TypeError(url)
    return url
  },
}) ?? {createScriptURL: (url) => url}

const engine = new Engine(() => new Worker(scripts.createScriptURL("worker.js")))
const policy = new TextEditor($("policy"), "Policy", changed)
const fragment = new TextEditor($("fragment"), "Fragment", changed)
const output = new Output($("output"))
const maxShown = 200 // findings in the list
const longestLink = 64 << 10 // written to the address bar
let view = "c"
let pending = 0
let lws = "" // requested version; "" means the latest

function request(what) {
  return {view: what, policy: policy.text, fragment: fragment.text, lws}
}

function changed() {
  clearTimeout(pending)
  pending = setTimeout(check, 150)
}

// check requests the findings, and then the view of the tab.
async function check() {
  clearTimeout(pending)
  saveLink()
  const docs = [policy.view.state.doc, fragment.view.state.doc]
  const asked = engine.ask("findings", request("findings"))
  show()
  let found
  try {
    found = await asked
  } catch (err) {
    found = {error: err.message}
  }
  const of = (name) => (found.findings ?? []).filter((f) => f.in === name)
  policy.show(of("policy"), docs[0])
  fragment.show(of("fragment"), docs[1])
  list(found)
  performance.mark("findings")
}

function element(tag, className, text) {
  const e = document.createElement(tag)
  e.className = className
  e.textContent = text
  return e
}

function button(text, click) {
  const b = element("button", "", text)
  b.addEventListener("click", click)
  return b
}

function plural(n, word) {
  return `${n} ${word}${n === 1 ? "" : "s"}`
}

function list({error, findings = []}) {
  if (error) {
    $("summary").textContent = error
    $("list").replaceChildren()
    return
  }
  const counts = ["error", "warning", "info"]
    .map((severity) => [findings.filter((f) => f.severity === severity).length, severity])
    .filter(([n]) => n > 0)
    .map(([n, severity]) => plural(n, severity))
  $("summary").textContent = counts.join(", ") || "No findings"
  $("list").replaceChildren(...findings.slice(0, maxShown).map(item))
  if (findings.length > maxShown) $("list").append(element("li", "", `and ${findings.length - maxShown} more`))
}

function item(f) {
  const editor = f.in === "policy" ? policy : fragment
  const li = element("li", "", "")
  const place = button(`${f.in === "policy" ? "" : "fragment "}${f.line}:${f.column}`, () => {
    if (f.in === "fragment") choose("overlay")
    editor.select(f.from, f.to)
  })
  place.className = "place"
  const message = element("div", "message", "")
  message.append(element("span", `severity ${f.severity}`, f.severity), ` ${f.message} `, rule(f.rule))
  for (const r of f.related ?? []) message.append(element("div", "rule", `line ${r.line}: ${r.message}`))
  const fixes = element("div", "fixes", "")
  for (const fix of f.fixes ?? []) fixes.append(button(`Fix: ${fix.message}`, () => editor.fix(fix)))
  li.append(place, message, fixes)
  return li
}

function rule(name) {
  const e = element(DOCS ? "a" : "span", "rule", `[${name}]`)
  if (DOCS) e.href = `${DOCS}rules/${encodeURIComponent(name)}.html`
  return e
}

// The functions that show the answers of the views. Other elements are hidden.
const shown = {
  c: ({text}) => showText(text, "c"),
  go: ({text}) => showText(text, "go"),
  graph: showPictures,
  retry: showPictures,
  footprint: ({footprint}) => showTable(footprint.map((row) => [row.kind, ...row.bytes])),
  overlay: ({text, changes}) => {
    if (changes) showTable([["setting", "before", "after", "why"], ...changes.map((c) => [c.path, c.before, c.after, c.why ?? ""])], "text")
    else if (!fragment.text.trim()) showMessage("A fragment is a policy that holds only what differs. Type one above to see what it changes.")
    else showMessage("The fragment changes nothing.")
    if (text) showText(text, "diff")
  },
}

// show shows the view of the tab.
async function show() {
  const of = view
  let answer
  try {
    answer = await engine.ask("view", request(of))
  } catch (err) {
    answer = {error: err.message}
  }
  if (of !== view) return
  for (const id of ["message", "table", "pictures", "output"]) $(id).hidden = true
  if (answer.error) showMessage(answer.error)
  else shown[of](answer)
  performance.mark("view")
}

function showText(text, language) {
  $("output").hidden = false
  output.show(text, language)
}

function showMessage(text) {
  $("message").hidden = false
  $("message").textContent = text
}

function showTable([head, ...rows], className = "") {
  const row = (cells, tag) => {
    const tr = document.createElement("tr")
    tr.append(...cells.map((cell, i) => {
      const e = element(i === 0 ? "th" : tag, i === 0 ? "" : className, cell)
      if (i === 0 || tag === "th") e.scope = tag === "th" ? "col" : "row"
      return e
    }))
    return tr
  }
  const table = document.createElement("table")
  table.append(row(head, "th"), ...rows.map((cells) => row(cells, "td")))
  $("table").hidden = false
  $("table").replaceChildren(table)
}

// An image does not run scripts in the picture.
function showPictures({pictures = [], text}) {
  for (const img of $("pictures").querySelectorAll("img")) URL.revokeObjectURL(img.src)
  $("pictures").hidden = pictures.length === 0
  $("pictures").replaceChildren(...pictures.map(({title, svg}) => {
    const img = new Image()
    img.alt = title
    img.src = URL.createObjectURL(new Blob([svg], {type: "image/svg+xml"}))
    return img
  }))
  if (text) showMessage(text)
}

function choose(name) {
  select(name)
  saveLink()
  show()
}

function select(name) {
  view = name
  for (const tab of $("tabs").children) {
    const selected = tab.dataset.view === name
    tab.setAttribute("aria-selected", selected)
    tab.tabIndex = selected ? 0 : -1
    if (selected) $("panel").setAttribute("aria-labelledby", tab.id)
  }
  $("overlay").hidden = name !== "overlay"
}

function makeTabs() {
  for (const [name, label] of Object.entries(tabs)) {
    const tab = button(label, () => choose(name))
    tab.id = `tab-${name}`
    tab.dataset.view = name
    tab.setAttribute("role", "tab")
    tab.setAttribute("aria-controls", "panel")
    $("tabs").append(tab)
  }
  $("tabs").addEventListener("keydown", (event) => {
    const all = [...$("tabs").children]
    const at = all.indexOf(event.target)
    const to = {ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1}[event.key]
    if (to === undefined) return
    event.preventDefault()
    const tab = all.at(to % all.length)
    choose(tab.dataset.view)
    tab.focus()
  })
}

let saved = "" // the link in the address bar, if this page wrote it

async function saveLink() {
  const link = "#" + await encode({policy: policy.text, fragment: fragment.text, lws, view})
  saved = link.length <= longestLink ? link : "#"
  history.replaceState(null, "", saved)
  return link
}

async function openLink() {
  if (location.hash.length < 2 || location.hash === saved) return false
  try {
    load(await decode(location.hash.slice(1)))
  } catch (err) {
    notify(err.message)
    return false
  }
  return true
}

function load({policy: text, fragment: other = "", lws: version = "", view: name = ""}) {
  policy.text = text
  fragment.text = other
  lws = version
  showVersion()
  select(Object.hasOwn(tabs, name) ? name : view)
  check()
}

// showVersion selects the requested version, or the latest.
function showVersion() {
  const options = [...$("lws").options]
  if (options.length === 0) return // not known yet
  if (!options.some((o) => o.value === lws)) lws = ""
  $("lws").value = lws || options[0].value
}

async function askVersions() {
  const {versions} = await engine.ask("versions", {view: "versions"})
  for (const version of versions) $("lws").add(new Option(version))
  const wanted = lws
  showVersion()
  if (lws !== wanted) check()
}

function notify(text) {
  $("notice").textContent = text
}

// rewrite replaces the policy with the result of a view.
async function rewrite(name) {
  const before = policy.text
  try {
    const {text, error} = await engine.ask(name, request(name))
    if (error) notify(error)
    else if (policy.text === before) {
      notify(text === before ? "Nothing to change." : "")
      policy.text = text
    }
  } catch (err) {
    notify(err.message)
  }
}

async function share() {
  const link = await saveLink()
  const url = new URL(link, location.href).href
  try {
    await navigator.clipboard.writeText(url)
    notify("The link is in the clipboard. It carries the policy, secrets included.")
  } catch {
    location.hash = link
    notify("The link is in the address bar. It carries the policy, secrets included.")
  }
}

for (const name of Object.keys(examples)) $("example").add(new Option(name))
$("example").addEventListener("change", () => {
  const example = examples[$("example").value]
  if (example) load(example)
})
$("lws").addEventListener("change", () => {
  lws = $("lws").value
  check()
})
$("fix").addEventListener("click", () => rewrite("fix"))
$("format").addEventListener("click", () => rewrite("format"))
$("share").addEventListener("click", share)
addEventListener("hashchange", openLink)
makeTabs()
askVersions().catch((err) => notify(err.message))
openLink().then((opened) => {
  if (!opened) load({policy: mistakes})
})
if ("serviceWorker" in navigator) navigator.serviceWorker.register(scripts.createScriptURL("sw.js")).catch(() => {})
