// Serves a folder like a static host, without compression or special headers.
import {createReadStream, existsSync, statSync} from "node:fs"
import {createServer} from "node:http"
import {extname, join, normalize} from "node:path"

const types = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".svg": "image/svg+xml"}

export async function serve(folder) {
  const server = createServer((request, response) => {
    let file = join(folder, normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname)))
    if (existsSync(file) && statSync(file).isDirectory()) file = join(file, "index.html")
    if (!existsSync(file)) return response.writeHead(404).end()
    response.writeHead(200, {"Content-Type": types[extname(file)] ?? "application/octet-stream"})
    createReadStream(file).pipe(response)
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  return {url: `http://127.0.0.1:${server.address().port}/`, close: () => {
    server.closeAllConnections()
    return new Promise((resolve) => server.close(resolve))
  }}
}
