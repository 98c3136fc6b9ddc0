// Builds the page into a folder: node build.mjs [FOLDER]. DOCS is the address of the
// documentation, relative to the page; without it the page does not link to rules.
import {execFileSync} from "node:child_process"
import {createHash} from "node:crypto"
import {cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync} from "node:fs"
import {dirname, join, resolve} from "node:path"
import {fileURLToPath} from "node:url"
import {brotliCompressSync, constants, gzipSync} from "node:zlib"
import {build} from "esbuild"

const budget = 3_000_000 // bytes over the network, with gzip

const here = dirname(fileURLToPath(import.meta.url))
const out = resolve(process.argv[2] ?? join(here, "../site/playground"))
const go = process.env.GO ?? "go"

rmSync(out, {recursive: true, force: true})
mkdirSync(out, {recursive: true})

// Without inlining (-l) the program is 13 % smaller when compressed.
const wasm = join(out, "sspolicy.wasm")
execFileSync(go, ["build", "-trimpath", "-gcflags=all=-l", "-ldflags=-s -w", "-o", wasm, "./internal/playground/wasm"],
  {cwd: join(here, ".."), env: {...process.env, GOOS: "js", GOARCH: "wasm"}, stdio: "inherit"})
const program = readFileSync(wasm)
// The worker inflates the program itself, so any web server suffices. The name does not end
// in .gz because some servers declare such files to be encoded.
writeFileSync(join(out, "sspolicy.bin"), gzipSync(program, {level: 9}))
rmSync(wasm)

const goroot = execFileSync(go, ["env", "GOROOT"]).toString().trim()
await build({
  entryPoints: [join(here, "src/main.js"), join(here, "src/worker.js")],
  outdir: out, bundle: true, minify: true, format: "iife", target: "es2022", charset: "utf8",
  alias: {wasm_exec: join(goroot, "lib/wasm/wasm_exec.js")},
  loader: {".json": "text"},
  define: {DOCS: JSON.stringify(process.env.DOCS ?? "")},
  logLevel: "warning",
})
for (const file of ["index.html", "style.css"]) cpSync(join(here, "src", file), join(out, file))

// The cache is named by its content.
const files = readdirSync(out).sort()
const hash = createHash("sha256")
for (const file of files) hash.update(file).update(readFileSync(join(out, file)))
const sw = readFileSync(join(here, "src/sw.js"), "utf8")
  .replace("VERSION", JSON.stringify(hash.digest("hex").slice(0, 16)))
  .replace("FILES", JSON.stringify(files))
writeFileSync(join(out, "sw.js"), sw)

let gzip = 0, brotli = 0
for (const file of [...files, "sw.js"]) {
  const content = readFileSync(join(out, file))
  const packed = file === "sspolicy.bin"
  const sizes = [packed ? content.length : gzipSync(content, {level: 9}).length, compress(packed ? program : content)]
  gzip += sizes[0]
  brotli += sizes[1]
  console.log(`${file.padEnd(14)} ${sizes.map((n) => String(n).padStart(9)).join(" ")}`)
}
console.log(`${"gzip, brotli".padEnd(14)} ${String(gzip).padStart(9)} ${String(brotli).padStart(9)}`)
if (gzip > budget) {
  console.error(`The page has ${gzip} bytes compressed, more than ${budget}.`)
  process.exit(1)
}

function compress(content) {
  return brotliCompressSync(content, {params: {[constants.BROTLI_PARAM_QUALITY]: 9, [constants.BROTLI_PARAM_LGWIN]: 24}}).length
}
