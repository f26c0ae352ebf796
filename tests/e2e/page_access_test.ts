import { assert, assertEquals } from "@std/assert";
import * as english from "../../lib/admin/page/lang/en.js";
import * as chinese from "../../lib/admin/page/lang/zh.js";
import { makeImage } from "../support/image.ts";
import { type OperatorPage, pageTest, pull, textOf } from "../support/page.ts";
import { until } from "../support/until.ts";

const IMAGE = makeImage({ seed: 1, layers: [5_000] });
const en: Readonly<Record<string, unknown>> = english.en;
const zh: Readonly<Record<string, unknown>> = chinese.zh;
const LONG = "a-team-with-a-long-name/an-application-with-an-even-longer-name-than-that";
const ROUTES = [
  "#/",
  "#/images",
  `#/image?registry=docker.io&repository=${LONG}&tag=1`,
  "#/upkeep",
  "#/connect",
];

const withImage = {
  async before(_page: unknown, { proxy, upstream }: Pick<OperatorPage, "proxy" | "upstream">) {
    upstream.add(LONG, "1", IMAGE);
    await pull(proxy, { repository: LONG, tag: "1", image: IMAGE });
  },
};

/** Opens each view, and waits until it shows something that came from the API. */
async function eachView({ page, url }: OperatorPage, look: (route: string) => Promise<void>) {
  for (const route of ROUTES) {
    await page.goto(url + route);
    await page.locator(
      ".registries tbody tr, .images tbody tr, .blobs tbody tr, #warm-images, .block",
    )
      .first().waitFor();
    await look(route);
  }
}

pageTest("a token is asked for once, and forgotten at the sign-out", async (all) => {
  const { page } = all;
  const token = page.getByLabel("Token");
  await token.fill("wrong");
  await page.keyboard.press("Enter");
  await textOf(page.locator(".problem"), /The token is wrong/);
  assertEquals(await page.locator(".images").count(), 0);
  await token.fill("the right token of the operator");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Images" }).waitFor();
  await page.reload();
  await page.getByRole("heading", { name: "Images" }).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await token.waitFor();
  await page.reload();
  await token.waitFor();
}, { token: "the right token of the operator", route: "#/images" });

pageTest("when the proxy is gone the page says so, and comes back with it", async (all) => {
  const { page } = all;
  await page.locator(".registries tbody tr").waitFor();
  await all.stopAdmin();
  const banner = page.locator("#banner");
  await textOf(banner, /The proxy is not responding/);
  await page.getByRole("link", { name: "Images" }).click();
  await textOf(page.locator(".empty.wrong"), /The proxy is not responding/);
  all.startAdmin();
  await banner.waitFor({ state: "hidden" });
  await page.locator(".images tbody tr").first().waitFor();
}, withImage);

pageTest("a device that wakes sees how things are without waiting for a timer", async (all) => {
  const { page } = all;
  await page.locator(".registries tbody tr").waitFor();
  await all.stopAdmin();
  const banner = page.locator("#banner");
  await textOf(banner, /The proxy is not responding/);
  // Asleep: time passes, and no timer runs from here on.
  await page.clock.fastForward(60_000);
  await page.clock.pauseAt(Date.now() + 120_000);
  all.startAdmin();
  await page.evaluate(() => dispatchEvent(new Event("online")));
  await banner.waitFor({ state: "hidden" });
}, {
  ...withImage,
  before: async (page, parts) => {
    await page.clock.install();
    await withImage.before(page, parts);
  },
});

pageTest(
  "the page speaks Chinese to a browser that does, and English when asked to",
  async (all) => {
    const { page } = all;
    assertEquals(await page.locator("html").getAttribute("lang"), "zh-Hans");
    const texts = Object.entries(en).filter(([key, text]) => zh[key] !== text);
    const foreign = new Set<unknown>(texts.map(([, text]) => text));
    await eachView(all, async (route) => {
      const lines = (await page.locator("body").innerText()).split("\n").map((line) => line.trim());
      assertEquals(lines.filter((text) => foreign.has(text)), [], route);
    });
    await page.getByLabel("\u8bed\u8a00").selectOption("en");
    await page.getByRole("heading", { name: "Client configuration" }).waitFor();
    await page.reload();
    await page.getByRole("heading", { name: "Client configuration" }).waitFor();
    assertEquals(await page.locator("html").getAttribute("lang"), "en");
  },
  { ...withImage, context: { locale: "zh-CN" } },
);

Deno.test("both languages have the same texts, with the same gaps", () => {
  assertEquals(Object.keys(zh), Object.keys(en));
  const gaps = (text: unknown) => String(text).match(/\{\w+\}/g)?.toSorted() ?? [];
  for (const [key, text] of Object.entries(en)) {
    assertEquals(typeof zh[key], typeof text, key);
    if (typeof text === "string") assertEquals(gaps(zh[key]), gaps(text), key);
  }
});

pageTest("the page is as dark as the system, unless it is told otherwise", async ({ page }) => {
  const ground = () => page.evaluate<string>("getComputedStyle(document.body).backgroundColor");
  const dark = await ground();
  await page.emulateMedia({ colorScheme: "light" });
  const light = await ground();
  assert(dark !== light);
  await page.getByLabel("Colours").selectOption("dark");
  assertEquals(await ground(), dark);
  await page.reload();
  assertEquals(await ground(), dark);
  await page.getByLabel("Colours").selectOption("auto");
  assertEquals(await ground(), light);
}, { context: { colorScheme: "dark" } });

for (const colorScheme of ["light", "dark"] as const) {
  pageTest(`text has enough contrast: ${colorScheme}`, async ({ page }) => {
    const poor = await page.evaluate(contrasts);
    assertEquals(poor, []);
  }, { context: { colorScheme } });
}

/** Pairs of colours below 4.5 to 1 (WCAG 2.2, 1.4.3). Runs in the page. */
const contrasts = `(() => {
  const pairs = [
    ...["ink", "muted", "sea", "wrong", "good"].flatMap((text) =>
      ["ground", "sheet"].map((back) => [text, back])),
    ["on-sea", "sea"], ["sheet", "wrong"], ["wrong", "wrong-soft"], ["ink", "sea-soft"], ["ground", "ink"],
  ];
  const probe = document.createElement("i");
  document.body.append(probe);
  const light = (name) => {
    probe.style.color = "var(--" + name + ")";
    const [r, g, b] = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((n) => {
      const part = n / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return pairs.flatMap(([text, back]) => {
    const [low, high] = [light(text), light(back)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    return ratio < 4.5 ? [text + " on " + back + ": " + ratio.toFixed(2)] : [];
  });
})()`;

pageTest("at phone width nothing has to be scrolled sideways", async (all) => {
  const { page } = all;
  await eachView(all, async (route) => {
    const width = await page.evaluate<number>("document.documentElement.scrollWidth");
    assertEquals(width, 360, route);
  });
}, { ...withImage, context: { viewport: { width: 360, height: 740 }, hasTouch: true } });

pageTest("every control and landmark has a name, and every view one heading", async (all) => {
  const { page } = all;
  await eachView(all, async (route) => {
    assertEquals(await page.locator("h1").count(), 1, route);
    const tree = await page.locator("body").ariaSnapshot();
    const nameless = tree.split("\n").filter((line) =>
      /^\s*- (button|link|textbox|searchbox|combobox|progressbar|meter|navigation|table|region|tab|img)( \[|:|$)/
        .test(line)
    );
    assertEquals(nameless, [], route);
  });
}, withImage);

pageTest("an image is found and removed with the keyboard alone", async ({ page, proxy }) => {
  await page.locator(".registries tbody tr").waitFor();
  const focused = () =>
    page.evaluate<string>(
      "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()",
    );
  const tabTo = async (text: RegExp) => {
    for (let i = 0; i < 40; i++) {
      await page.keyboard.press("Tab");
      const outline = await page.evaluate<string>(
        "getComputedStyle(document.activeElement).outlineStyle",
      );
      assert(outline !== "none", `No visible focus: ${await focused()}`);
      if (text.test(await focused())) return;
    }
    throw new Error(`Not reached by Tab: ${text}`);
  };
  await tabTo(/^Skip to the content$/);
  await page.keyboard.press("Enter");
  assertEquals(await page.evaluate("document.activeElement.id"), "main");
  await page.keyboard.press("Shift+Tab");
  for (let i = 0; i < 10 && await focused() !== "Images"; i++) {
    await page.keyboard.press("Shift+Tab");
  }
  await page.keyboard.press("Enter");
  await page.locator(".images tbody tr").first().waitFor();
  assertEquals(await focused(), "Images"); // the heading: what changed is read out
  await page.keyboard.press("Tab");
  await page.keyboard.type("longer");
  await textOf(page.locator(".total"), /^1 image$/);
  await tabTo(/an-application/);
  await page.keyboard.press("Enter");
  await page.locator(".blobs tbody tr").first().waitFor();
  await tabTo(/^Remove tag$/);
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await until(async () => await focused() === "Remove tag");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await tabTo(/^Remove tag$/);
  await page.keyboard.press("Enter");
  await textOf(page.locator("#status"), /^Removed 1 tag/);
  assertEquals(await Array.fromAsync(proxy.proxy.cache!.index.tags()), []);
}, withImage);

pageTest("the charts can be read with arrow keys and as a list", async ({ page, proxy }) => {
  await pull(proxy, { repository: LONG, tag: "1", image: IMAGE, times: 2 });
  const plot = page.getByRole("img", { name: /^Answered from the cache: / });
  await plot.focus();
  await page.keyboard.press("End");
  await textOf(page.locator(".readout").first(), /^\d\d:\d\d: /);
  await until(async () => /: \d\d:\d\d: /.test(await plot.getAttribute("aria-label") ?? ""));
  await page.keyboard.press("Escape");
  await textOf(page.locator(".readout").first(), /^In the last hour: /);
  await page.getByText("Show as a list").first().click();
  await textOf(page.locator(".as-table td").first(), /requests/);
}, withImage);
