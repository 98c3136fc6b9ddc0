// Tests the documentation in chromium.
import assert from "node:assert/strict"
import {test} from "node:test"
import {load, shoot} from "./chromium.mjs"

test("search, by keyboard", async (t) => {
  const page = await load(t, "guide.html")
  await shoot(page, "site-1280")
  await page.keyboard.press("/")
  await page.keyboard.type("forward-reference")
  await page.locator("#results [role=option]").first().waitFor()
  await shoot(page, "site-search")
  await page.keyboard.press("Enter")
  await page.waitForURL(/rules\/forward-reference.html/)
})

test("an example opens in the playground, and a finding links to its rule", async (t) => {
  const page = await load(t, "rules/unknown-key.html")
  await shoot(page, "site-rule")
  await page.getByRole("link", {name: "Open in the playground"}).first().click()
  await page.locator("#list a", {hasText: "[unknown-key]"}).first().click()
  await page.waitForURL(/rules\/unknown-key.html/)
})

test("dark mode and narrow screens", async (t) => {
  const dark = await load(t, "rules/index.html", {colorScheme: "dark"})
  await shoot(dark, "site-dark")
  for (const name of ["index", "guide", "keys", "performance", "architecture", "rules/unknown-key"]) {
    const page = await load(t, name + ".html", {viewport: {width: 390, height: 844}})
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth) <= 390, name)
    await shoot(page, `site-390-${name.replace("/", "-")}`)
  }
})
