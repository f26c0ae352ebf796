import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { makeImage } from "../support/image.ts";
import { type OperatorPage, pageTest, pull, textOf } from "../support/page.ts";
import type { TestProxy } from "../support/proxy.ts";

const IMAGE = makeImage({ seed: 1 });

/** Notes these tags in the index, all of one image. */
async function note(proxy: TestProxy, tags: Iterable<readonly [repository: string, tag: string]>) {
  const { index } = proxy.proxy.cache!;
  const [real] = await Array.fromAsync(index.tags());
  const { registry, digest } = real!;
  let checkedAt = Date.now() - 86_400_000;
  for (const [repository, tag] of tags) {
    await index.setTag({ registry, repository }, tag, { digest, checkedAt: checkedAt++ });
    const link = { registry, repository, digest, kind: "manifest" } as const;
    await index.addLink(link, { mediaType: IMAGE.mediaType });
  }
}

async function withOne({ proxy, upstream }: Pick<OperatorPage, "proxy" | "upstream">) {
  upstream.add("library/first", "1", IMAGE);
  await pull(proxy, { repository: "library/first", tag: "1", image: IMAGE });
}

pageTest("ten thousand images are searched, sorted and paged", async ({ page }) => {
  const total = page.locator(".total");
  const rows = page.locator(".images tbody tr");
  await textOf(total, /^10,000 images$/);
  assertEquals(await rows.count(), 50);
  await textOf(page.locator(".range"), /^1–50 of 10,000$/);

  const heading = page.getByRole("columnheader", { name: "Repository" });
  await heading.getByRole("button").click();
  await textOf(rows.first(), /docker\.io\/library\/first/);
  assertEquals(await heading.getAttribute("aria-sort"), "ascending");
  await heading.getByRole("button").click();
  await textOf(rows.first(), /team-99\/app-99/);
  assertEquals(await heading.getAttribute("aria-sort"), "descending");
  assertEquals(
    await page.getByRole("columnheader", { name: "Tag" }).getAttribute("aria-sort"),
    "none",
  );

  await page.getByRole("button", { name: "Next" }).click();
  await textOf(page.locator(".range"), /^51–100 of 10,000$/);
  await page.reload();
  await textOf(page.locator(".range"), /^51–100 of 10,000$/);
  assert(await page.getByRole("button", { name: "Previous" }).isEnabled());

  await page.getByLabel("Search").fill("team-42/ v7");
  await textOf(total, /^10 images$/);
  assertEquals(await page.locator(".pager").isVisible(), false);
  await page.getByLabel("Search").fill("no such image");
  await textOf(page.locator(".empty"), /No image matches/);
  await page.getByLabel("Search").fill("");
  await textOf(total, /^10,000 images$/);
  await page.getByLabel("Registry").selectOption("quay.io");
  await textOf(page.locator(".empty"), /No image matches/);
}, {
  route: "#/images",
  async before(_page, parts) {
    await withOne(parts);
    const names = Array.from({ length: 9_999 }, (_, i): [string, string] => {
      const [team, app] = [Math.floor(i / 100), i % 10 * 11];
      return [`team-${team}/app-${app}`, `v${Math.floor(i / 10) % 10}.${i % 10}`];
    });
    await note(parts.proxy, names);
  },
});

pageTest("more images than can be sorted are paged and searched by name", async ({ page }) => {
  const rows = page.locator(".images tbody tr");
  const [next, previous] = ["Next", "Previous"].map((name) => page.getByRole("button", { name }));
  await textOf(page.locator(".range"), /listed by name/);
  await textOf(rows.first(), /docker\.io\/library\/first/);
  assertEquals(await rows.count(), 50);
  const second = await rows.nth(49).innerText();
  await next!.click();
  await textOf(rows.first(), /team-0\//);
  assert(await previous!.isEnabled());
  await previous!.click();
  await textOf(rows.first(), /docker\.io\/library\/first/);
  assertEquals(await rows.nth(49).innerText(), second);
  assert(!await previous!.isEnabled());
  await page.getByLabel("Search").fill("team-119/ v99");
  await textOf(rows.first(), /team-119\/app/);
  assertEquals(await rows.count(), 1);
}, {
  route: "#/images",
  async before(_page, parts) {
    await withOne(parts);
    const names = Array.from(
      { length: 11_999 },
      (_, i): [string, string] => [`team-${Math.floor(i / 100)}/app`, `v${i % 100}`],
    );
    await note(
      parts.proxy,
      names.filter(([name, tag]) => name !== "team-119/app" || tag !== "v98"),
    );
    await note(parts.proxy, [["team-119/app", "v99"]]);
  },
});

pageTest("signatures are listed when they are asked for", async ({ page }) => {
  const total = page.locator(".total");
  await textOf(total, /^1 image$/);
  await page.getByLabel("Show signatures").check();
  await textOf(total, /^2 images$/);
  await textOf(page.locator(".images tbody"), /sha256-\w{12}….sig/);
  await page.reload();
  await textOf(total, /^2 images$/);
  await page.getByLabel("Show signatures").uncheck();
  await textOf(total, /^1 image$/);
}, {
  route: "#/images",
  async before(_page, both) {
    await withOne(both);
    await note(both.proxy, [["library/first", `${IMAGE.digest.replace(":", "-")}.sig`]]);
  },
});

pageTest("names are text, whatever they hold", async ({ page }) => {
  const tag = page.locator(".images code", { hasText: "onerror" });
  assertEquals(await textOf(tag, /onerror/), '<img src=x onerror="document.title=1">');
  await page.locator(".images tbody a", { hasText: "script" }).click();
  await textOf(page.locator("h1"), /<script>alert\(1\)<\/script>/);
  assertStringIncludes(await page.title(), "deno-docker-proxy");
  assertEquals(await page.locator("main script, main img").count(), 0);
}, {
  route: "#/images",
  async before(_page, parts) {
    await withOne(parts);
    await note(parts.proxy, [[
      "<script>alert(1)</script>",
      '<img src=x onerror="document.title=1">',
    ]]);
  },
});

pageTest("hits of an image are counted in the list", async ({ page, proxy }) => {
  await textOf(page.locator(".images tbody tr"), /docker\.io\/library\/first/);
  await pull(proxy, { repository: "library/first", tag: "1", image: IMAGE, times: 4 });
  const hits = async () =>
    Number((await page.locator(".images tbody td").last().innerText()).match(/\d+/)?.[0]);
  const before = Date.now();
  // The server reads its list anew after three seconds.
  while (await hits() !== 4 && Date.now() - before < 20_000) {
    await page.getByRole("button", { name: "Hits" }).click();
    await page.locator(".images:not([aria-busy])").waitFor();
  }
  assertEquals(await hits(), 4);
}, { route: "#/images", before: (_page, parts) => withOne(parts) });
