// Serves the page without a network. The build fills in the two names in capitals.
const cacheName = "sspolicy-playground-" + VERSION
const files = ["./", ...FILES]

self.addEventListener("install", (event) => {
  event.waitUntil((async () => {
    const cache = await caches.open(cacheName)
    await cache.addAll(files.map((file) => new Request(file, {cache: "no-cache"})))
    await self.skipWaiting()
  })())
})

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith("sspolicy-playground-") && name !== cacheName) await caches.delete(name)
    }
    await self.clients.claim()
  })())
})

self.addEventListener("fetch", (event) => {
  event.respondWith((async () => {
    const cache = await caches.open(cacheName)
    return await cache.match(event.request, {ignoreSearch: true}) ?? fetch(event.request)
  })())
})
