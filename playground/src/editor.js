import {defaultKeymap, history, historyKeymap} from "@codemirror/commands"
import {bracketMatching, HighlightStyle, indentOnInput, indentUnit, StreamLanguage, syntaxHighlighting} from "@codemirror/language"
import {c} from "@codemirror/legacy-modes/mode/clike"
import {go} from "@codemirror/legacy-modes/mode/go"
import {diff} from "@codemirror/legacy-modes/mode/diff"
import {lintGutter, lintKeymap, setDiagnostics} from "@codemirror/lint"
import {highlightSelectionMatches, searchKeymap} from "@codemirror/search"
import {Compartment, EditorState} from "@codemirror/state"
import {drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers} from "@codemirror/view"
import {tags} from "@lezer/highlight"

// JSON with the comments of lws, which begin with "#".
const policy = StreamLanguage.define({
  name: "policy",
  token(stream) {
    if (stream.eatSpace()) return null
    if (stream.eat("#")) {
      stream.skipToEnd()
      return "comment"
    }
    if (stream.match(/^"(?:[^"\\]|\\.)*"?/)) return stream.match(/^\s*:/, false) ? "propertyName" : "string"
    if (stream.match(/^-?[0-9][0-9.eE+-]*/)) return "number"
    if (stream.match(/^(true|false|null)\b/)) return "bool"
    stream.next()
    return null
  },
  indent(state, textAfter, context) {
    const line = context.lineAt(context.pos, -1).text
    const open = /[[{]\s*$/.test(line) ? context.unit : 0
    const close = /^\s*[\]}]/.test(textAfter) ? context.unit : 0
    return Math.max(0, /^\s*/.exec(line)[0].length + open - close)
  },
  languageData: {commentTokens: {line: "#"}, closeBrackets: {brackets: ["[", "{", '"']}, indentOnInput: /^\s*[\]}]$/},
})

const languages = {policy, c: StreamLanguage.define(c), go: StreamLanguage.define(go), diff: StreamLanguage.define(diff)}

// The colours are variables of style.css, so that they follow the theme of the system.
const colours = HighlightStyle.define([
  {tag: tags.comment, color: "var(--comment)"},
  {tag: [tags.propertyName, tags.definition(tags.variableName)], color: "var(--key)"},
  {tag: [tags.string, tags.special(tags.string)], color: "var(--string)"},
  {tag: [tags.number, tags.bool, tags.atom], color: "var(--number)"},
  {tag: [tags.keyword, tags.meta], color: "var(--keyword)"},
  {tag: [tags.typeName, tags.standard(tags.variableName)], color: "var(--type)"},
  {tag: tags.inserted, color: "var(--added)"},
  {tag: tags.deleted, color: "var(--removed)"},
])

const theme = EditorView.theme({
  "&": {height: "100%", backgroundColor: "var(--editor)", color: "var(--text)", fontSize: "13px"},
  "&.cm-focused": {outline: "2px solid var(--accent)", outlineOffset: "-2px"},
  ".cm-scroller": {fontFamily: "var(--mono)", lineHeight: "1.5"},
  ".cm-content": {caretColor: "var(--text)"},
  ".cm-cursor": {borderLeftColor: "var(--text)"},
  ".cm-gutters": {backgroundColor: "var(--editor)", color: "var(--faint)", border: "none"},
  ".cm-activeLine": {backgroundColor: "var(--line)"},
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {backgroundColor: "var(--selection)"},
  ".cm-matchingBracket, &.cm-focused .cm-matchingBracket": {backgroundColor: "var(--selection)", outline: "1px solid var(--faint)"},
  ".cm-tooltip": {backgroundColor: "var(--panel)", color: "var(--text)", border: "1px solid var(--border)", maxWidth: "min(40em, 80vw)"},
  ".cm-diagnosticAction": {backgroundColor: "var(--accent)", color: "var(--on-accent)", font: "inherit"},
  ".cm-panels": {backgroundColor: "var(--panel)", color: "var(--text)"},
  ".cm-textfield, .cm-button": {backgroundColor: "var(--editor)", backgroundImage: "none", color: "var(--text)", border: "1px solid var(--border)"},
  ".cm-panel.cm-panel-lint ul [aria-selected], .cm-panel.cm-panel-lint ul:focus [aria-selected]": {backgroundColor: "var(--selection)", color: "var(--text)"},
})

// create adds an editor to an element. The editor is in a shadow tree, in which CodeMirror
// adopts style sheets instead of writing style elements, which the page's security policy
// forbids.
function create(parent, label, extensions) {
  const root = parent.attachShadow({mode: "open"})
  return new EditorView({
    root, parent: root,
    state: EditorState.create({extensions: [
      lineNumbers(), drawSelection(), highlightSelectionMatches(), bracketMatching(),
      syntaxHighlighting(colours), theme, keymap.of([...searchKeymap, ...defaultKeymap]),
      EditorView.contentAttributes.of({"aria-label": label}),
      ...extensions,
    ]}),
  })
}

// A TextEditor is an editor of a policy or a fragment.
export class TextEditor {
  constructor(parent, label, changed) {
    this.view = create(parent, label, [
      history(), indentOnInput(), indentUnit.of("  "), highlightActiveLine(), lintGutter(), policy,
      keymap.of([{key: "Mod-.", run: () => this.#fixHere()}, ...historyKeymap, ...lintKeymap]),
      EditorView.updateListener.of((update) => {
        if (update.docChanged) changed()
      }),
    ])
    this.findings = []
    this.checked = this.view.state.doc
  }

  get text() {
    return this.view.state.doc.toString()
  }

  // set replaces the text. Undo restores the old one.
  set text(text) {
    if (text !== this.text) this.view.dispatch({changes: {from: 0, to: this.view.state.doc.length, insert: text}, selection: {anchor: 0}})
  }

  // show marks findings of doc, unless the text has changed since.
  show(findings, doc) {
    if (doc !== this.view.state.doc) return // newer findings will follow
    this.findings = findings
    this.checked = doc
    this.view.dispatch(setDiagnostics(this.view.state, findings.map((f) => ({
      from: f.from, to: f.to, severity: f.severity, source: f.rule, message: f.message,
      actions: (f.fixes ?? []).map((fix) => ({name: fix.message, apply: () => this.fix(fix)})),
    }))))
  }

  // fix applies a fix unless the text has changed since it was found.
  fix(fix) {
    if (this.view.state.doc !== this.checked) return
    this.view.dispatch({changes: fix.edits, scrollIntoView: true, userEvent: "input.fix"})
    this.view.focus()
  }

  #fixHere() {
    const {from, to} = this.view.state.doc.lineAt(this.view.state.selection.main.head)
    const found = this.findings.find((f) => f.fixes && f.from <= to && f.to >= from)
    if (found) this.fix(found.fixes[0])
    return true
  }

  select(from, to) {
    const end = this.view.state.doc.length
    this.view.dispatch({selection: {anchor: Math.min(from, end), head: Math.min(to, end)}, scrollIntoView: true})
    this.view.focus()
  }
}

// An Output shows generated text.
export class Output {
  #language = new Compartment()

  constructor(parent) {
    this.view = create(parent, "Output", [EditorState.readOnly.of(true), this.#language.of([])])
  }

  show(text, language) {
    this.view.dispatch({
      changes: {from: 0, to: this.view.state.doc.length, insert: text},
      effects: this.#language.reconfigure(languages[language] ?? []),
    })
    this.view.requestMeasure() // the element may have been hidden
  }
}
