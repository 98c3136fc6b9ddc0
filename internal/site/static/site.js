// Search: finds sections with all words, or words that begin with them, best first.
"use strict"

const root = document.documentElement.dataset.root
const input = document.getElementById("search")
const results = document.getElementById("results")
const maxResults = 20
let index // a promise

if (matchMedia("(max-width: 800px)").matches) document.querySelector("nav details").open = false

async function load() {
  const file = await fetch(root + "search.json")
  if (!file.ok) throw new Error(`search.json: ${file.status}`)
  return (await file.json()).map((s) => ({...s, low: [s.title, s.head, s.text].map((t) => t.toLowerCase())}))
}

// score rates a section, with 0 if it lacks a word.
function score({low: [title, head, text]}, words) {
  let sum = 0
  for (const word of words) {
    const start = new RegExp("(^|[^a-z0-9])" + word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))
    const n = start.test(head) ? 10 : start.test(title) ? 6 : start.test(text) ? 2 : 0
    if (n === 0) return 0
    sum += n + (head === word ? 10 : 0)
  }
  return sum
}

async function search() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean)
  let found = []
  if (words.length > 0) {
    index ??= load()
    let sections
    try {
      sections = await index
    } catch (err) {
      index = undefined
      show([], String(err.message))
      return
    }
    if (input.value.toLowerCase().split(/\s+/).filter(Boolean).join() !== words.join()) return
    found = sections.map((s) => ({s, n: score(s, words)})).filter(({n}) => n > 0).sort((a, b) => b.n - a.n).slice(0, maxResults)
  }
  show(found.map(({s}) => s), words.length > 0 && found.length === 0 ? "Nothing found" : "")
}

function show(sections, message) {
  results.hidden = sections.length === 0 && !message
  input.setAttribute("aria-expanded", String(!results.hidden))
  results.replaceChildren(...sections.map((s, i) => {
    const li = document.createElement("li")
    li.setAttribute("role", "option")
    li.id = `result-${i}`
    const a = document.createElement("a")
    a.href = root + s.url
    a.tabIndex = -1
    a.textContent = s.head || s.title
    const small = document.createElement("small")
    small.textContent = (s.head && s.head !== s.title ? s.title + " – " : "") + s.text.slice(0, 110)
    a.append(small)
    li.append(a)
    return li
  }))
  if (message) {
    const li = document.createElement("li")
    li.textContent = message
    results.append(li)
  }
  select(0)
}

let selected = 0

function select(i) {
  const options = results.querySelectorAll("[role=option]")
  if (options.length === 0) return input.removeAttribute("aria-activedescendant")
  selected = (i + options.length) % options.length
  options.forEach((o, at) => o.setAttribute("aria-selected", String(at === selected)))
  input.setAttribute("aria-activedescendant", options[selected].id)
  options[selected].scrollIntoView({block: "nearest"})
}

input.addEventListener("input", search)
input.addEventListener("keydown", (event) => {
  const move = {ArrowDown: 1, ArrowUp: -1}[event.key]
  if (move) {
    event.preventDefault()
    select(selected + move)
  } else if (event.key === "Enter") {
    results.querySelectorAll("[role=option] a")[selected]?.click()
  } else if (event.key === "Escape") {
    input.value = ""
    search()
  }
})
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(input|textarea|select)$/i.test(document.activeElement.tagName)) {
    event.preventDefault()
    input.focus()
  }
})
document.addEventListener("click", (event) => {
  if (!event.target.closest("search")) show([], "")
})
