// Measures how long vscode-json-languageservice takes for each keystroke of a file that
// TestLatency has written: node latency.mjs KEYS SCHEMA
import { readFileSync } from "node:fs";
import json from "vscode-json-languageservice";

const { policy, keys } = JSON.parse(readFileSync(process.argv[2]));
const schema = JSON.parse(readFileSync(process.argv[3]));
const { getLanguageService, TextDocument } = json;
const service = getLanguageService({});
service.configure({ validate: true, schemas: [{ fileMatch: ["*.json"], uri: "policy.schema.json", schema }] });
let document = TextDocument.create("file:///policy.json", "json", 1, policy);
const took = [], cost = [];
for (const [i, key] of keys.entries()) {
  const start = performance.now(), before = process.cpuUsage();
  const range = { start: document.positionAt(key.start), end: document.positionAt(key.end) };
  document = TextDocument.update(document, [{ range, text: key.text }], i + 2);
  await service.doValidation(document, service.parseJSONDocument(document));
  took.push(performance.now() - start);
  const { user, system } = process.cpuUsage(before);
  cost.push((user + system) / 1000);
}
console.log(`${keys.length} keystrokes`);
for (const [name, list] of Object.entries({ time: took, "processor time": cost })) {
  list.sort((a, b) => a - b);
  const at = (q) => list[Math.floor((list.length - 1) * q)].toFixed(1) + " ms";
  console.log(`${name}: median ${at(0.5)}, p99 ${at(0.99)}, most ${at(1)}`);
}
