// An Engine sends requests to a worker, one at a time. It terminates the worker if an answer
// takes too long, since a text from a link may be designed to waste time.

export const limit = 10_000 // ms for an answer

export class Engine {
  #create
  #limit
  #worker
  #ready = false
  #running = null // {request, resolve, reject}
  #waiting = new Map() // by slot
  #timer

  constructor(create, ms = limit) {
    this.#create = create
    this.#limit = ms
    this.#start()
  }

  // ask returns the response to a request. A newer request for the same slot replaces a
  // pending one, whose promise then never settles.
  ask(slot, request) {
    return new Promise((resolve, reject) => {
      this.#waiting.delete(slot)
      this.#waiting.set(slot, {request, resolve, reject})
      this.#next()
    })
  }

  #start() {
    this.#ready = false
    const worker = this.#create()
    this.#worker = worker
    worker.onmessage = ({data}) => {
      if (worker !== this.#worker) return
      if (data.ready) this.#ready = true
      else if (data.failed) this.#fail(new Error(`The checker cannot run: ${data.failed}`))
      else this.#settle((job) => job.resolve(JSON.parse(data.response)))
      this.#next()
    }
    worker.onerror = (event) => this.#fail(new Error(`The checker cannot run: ${event.message ?? "worker.js cannot be loaded"}`))
  }

  #next() {
    if (!this.#ready || this.#running || this.#waiting.size === 0) return
    const [slot, job] = this.#waiting.entries().next().value
    this.#waiting.delete(slot)
    this.#running = job
    this.#worker.postMessage(JSON.stringify(job.request))
    this.#timer = setTimeout(() => {
      this.#worker.terminate()
      this.#settle((job) => job.reject(new Error(`This took longer than ${this.#limit / 1000} s and was stopped.`)))
      this.#start()
    }, this.#limit)
  }

  #settle(how) {
    clearTimeout(this.#timer)
    const job = this.#running
    this.#running = null
    if (job) how(job)
  }

  // fail terminates the worker. The next request starts another one.
  #fail(err) {
    this.#worker.terminate()
    this.#settle((job) => job.reject(err))
    for (const job of this.#waiting.values()) job.reject(err)
    this.#waiting.clear()
    this.#start()
  }
}
