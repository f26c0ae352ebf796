import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { breakMethod } from "../support/break_method.ts";
import { whole } from "../support/http.ts";
import { HERE, type Image, makeImage, makeIndex } from "../support/image.ts";
import { type OperatorPage, pageTest, pull, textOf } from "../support/page.ts";
import { until } from "../support/until.ts";

const NGINX = makeImage({ seed: 1, layers: [20_000, 3_000] });

/** Has nginx in the cache before the page is opened. */
const withNginx = {
  async before(_page: unknown, { proxy, upstream }: Pick<OperatorPage, "proxy" | "upstream">) {
    upstream.add("library/nginx", "1", NGINX);
    await pull(proxy, { repository: "library/nginx", tag: "1", image: NGINX });
  },
};
const NGINX_ROUTE = "#/image?registry=docker.io&repository=library/nginx&tag=1";

function toast({ page }: OperatorPage) {
  return page.locator("#status");
}

pageTest(
  "the overview tells what share of the requests the cache answered, and goes on by itself",
  async (all) => {
    const { page, proxy } = all;
    const ratio = page.locator(".headline dd").first();
    assertEquals(await textOf(ratio, /%/), "20.0%"); // the manifest, by its digest
    await pull(proxy, { repository: "library/nginx", tag: "1", image: NGINX, times: 3 });
    await textOf(ratio, /^80\.0%$/); // of 20 requests all but the first four
    const saved = `${Number((proxy.stats.bytesFromCache / 1024).toFixed(1))}\u00a0KiB`;
    assertEquals(await page.locator(".headline dd").nth(2).innerText(), saved);
    await textOf(page.locator(".sentence"), /each byte from upstream was served/);
    await textOf(page.locator(".registries tbody"), /docker\.io[^]*up/);
    await textOf(page.locator(".used"), /^2\d(\.\d)?\sKiB of 10\sGiB used/);
  },
  withNginx,
);

pageTest("an empty cache says so, and how to fill it", async ({ page }) => {
  await textOf(page.locator(".sentence"), /No image has been pulled yet/);
  await textOf(page.locator(".fills + p, main"), /No downloads from upstream/);
  await page.getByRole("link", { name: "Images" }).click();
  await textOf(page.locator(".empty"), /The cache is empty/);
  await page.getByRole("link", { name: "Connect a client" }).click();
  await page.getByRole("heading", { name: "Client configuration" }).waitFor();
});

pageTest(
  "with the cache off nothing can be warmed or verified, and the page says why",
  async ({ page }) => {
    await textOf(page.locator(".sentence"), /The cache is off/);
    await page.getByRole("link", { name: "Images" }).click();
    await textOf(page.locator(".empty"), /The cache is off/);
    await page.getByRole("link", { name: "Warm & verify" }).click();
    await textOf(page.locator(".notice"), /The cache is off/);
    assert(await page.getByRole("button", { name: "Warm", exact: true }).isDisabled());
    assert(await page.getByRole("button", { name: "Verify" }).isDisabled());
  },
  { env: { CACHE_ENABLED: "false" } },
);

pageTest("a download is shown with its progress and clients while it lasts", async (all) => {
  const { page, proxy, upstream } = all;
  const image = makeImage({ seed: 7, layers: [400_000] });
  upstream.add("team/app", "1", image);
  upstream.faults.add({ kind: "blob" }, { stallAt: 200_000 }, { times: 1 });
  await whole(`${proxy.url}/v2/team/app/manifests/1`);
  const { digest } = image.layers[0]!;
  const pulling = [1, 2].map(() => fetch(`${proxy.url}/v2/team/app/blobs/${digest}`));
  const answers = await Promise.all(pulling);
  const fill = page.locator(".fills li");
  await textOf(fill, /docker\.io\/team\/app[^]*of 41\d\sKiB[^]*2 clients waiting/);
  const bar = fill.getByRole("progressbar");
  await until(async () => await bar.getAttribute("aria-valuenow") !== "0");
  const part = Number(await bar.getAttribute("aria-valuenow"));
  assert(part > 30 && part < 70, `${part} %`);
  await upstream.down();
  await page.getByText("No downloads from upstream").waitFor();
  await Promise.all(answers.map((answer) => answer.body!.cancel().catch(() => {})));
});

pageTest("downloads that wait for their turn are counted", async (all) => {
  const { page, proxy, upstream } = all;
  const image = makeImage({ seed: 7, layers: [400_000, 300_000, 200_000] });
  upstream.add("team/app", "1", image);
  const stall = upstream.faults.add({ kind: "blob" }, { stallAt: 100_000 });
  await whole(`${proxy.url}/v2/team/app/manifests/1`);
  const leave = new AbortController();
  const pulling = image.layers.map(({ digest }) =>
    fetch(`${proxy.url}/v2/team/app/blobs/${digest}`, { signal: leave.signal }).catch(() => {})
  );
  const queue = page.locator(".queue");
  await textOf(queue, /^2 more downloads are queued/);
  const metrics = await whole(`${all.url}metrics`);
  assertStringIncludes(metrics.text, "\nregistry_proxy_fills_waiting 2\n");
  stall.remove();
  await upstream.down();
  await queue.waitFor({ state: "hidden" });
  leave.abort();
  await Promise.all(pulling.map(async (one) => await (await one)?.body?.cancel().catch(() => {})));
}, { env: { MAX_CONCURRENT_FILLS: "1" } });

pageTest("an upstream that fails is down, in words", async ({ page, proxy, upstream }) => {
  upstream.control.failWith = 503;
  await whole(`${proxy.url}/v2/library/nginx/manifests/1`);
  await textOf(page.locator(".registries .state"), /^down · status 503$/);
  const attention = page.locator(".attention");
  await textOf(attention, /^docker\.io is down \(status 503\)/);
  upstream.control.failWith = undefined;
  await whole(`${proxy.url}/v2/library/nginx/manifests/1`);
  await textOf(page.locator(".registries .state"), /^up$/);
  await attention.waitFor({ state: "hidden" });
});

pageTest("who only asks for health has pulled nothing", async ({ page, proxy }) => {
  for (let i = 0; i < 3; i++) await whole(`${proxy.url}/health`);
  await textOf(page.locator(".sentence"), /^No image has been pulled yet/);
  await page.reload();
  await textOf(page.locator(".sentence"), /^No image has been pulled yet/);
  assertEquals(await page.locator(".headline .note").first().innerText(), "of 0 requests");
});

pageTest("two names of one upstream are shown as one", async ({ page }) => {
  const text = await textOf(page.locator(".unasked"), /quay\.io/);
  assert(!text.includes("registry.k8s.io"), text);
}, { env: { UPSTREAM_K8S: "https://quay.io" } });

pageTest("few pulls left want attention", async ({ page, proxy, upstream }) => {
  upstream.add("library/nginx", "1", NGINX);
  upstream.control.quota = { limit: 100, remaining: 9, window: 21_600 };
  await whole(`${proxy.url}/v2/library/nginx/manifests/1`);
  await textOf(page.locator(".attention"), /^docker\.io has \d+ of 100 pulls left\.$/);
});

pageTest(
  "the charts show an hour, a day or a month, and remember which",
  async ({ page, proxy }) => {
    await pull(proxy, { repository: "library/nginx", tag: "1", image: NGINX, times: 2 });
    const readout = page.locator(".readout").first();
    await textOf(readout, /^In the last hour: /);
    assertEquals(await page.locator(".plot").first().locator(".column").count(), 60);
    await page.getByText("30 days", { exact: true }).click();
    await textOf(readout, /^In the last 30 days: [\d.]+% \(\d+ requests\)$/);
    await page.getByText("Day", { exact: true }).click();
    await textOf(readout, /^In the last day: /);
    await page.getByRole("radio", { name: "Day", exact: true }).press("ArrowRight");
    await textOf(readout, /^In the last 30 days: /);
    await page.getByRole("radio", { name: "30 days" }).press("ArrowLeft");
    await textOf(readout, /^In the last day: /);
    assertEquals(await page.locator(".plot").first().locator(".column").count(), 96);
    await page.reload();
    await textOf(readout, /^In the last day: /);
    assert(await page.getByRole("radio", { name: "Day", exact: true }).isChecked());
  },
  withNginx,
);

pageTest("an index that fails is shown as that, not as an outage", async ({ page, proxy }) => {
  await textOf(page.locator(".used"), /used/);
  using _broken = breakMethod(proxy.proxy.cache!.index, "totals", "disk I/O error");
  proxy.stats.cacheEvents.add("disk_error");
  await textOf(page.locator(".used.wrong"), /^The index is unavailable.*disk I\/O error$/);
  const trouble = page.locator(".figure", { hasText: "Failures" });
  await textOf(trouble, /^Failures\s*1\s*disk or index failed 1$/);
  assertEquals(await page.locator("#banner").isVisible(), false);
});

pageTest("an image is shown down to its layers and its manifest", async ({ page }) => {
  const facts = page.locator(".facts");
  await textOf(facts, new RegExp(NGINX.digest.slice(0, 19)));
  const rows = page.locator(".blobs tbody tr");
  await rows.nth(2).waitFor();
  assertEquals(
    await rows.locator("code[title^=sha256]").evaluateAll((codes) =>
      codes.map((code) => code.getAttribute("title"))
    ),
    NGINX.blobs.map(({ digest }) => digest),
  );
  await page.getByText("Manifest as JSON").click();
  const json = await page.locator(".raw code").innerText();
  assertEquals(JSON.parse(json).layers.length, 2);
}, { ...withNginx, route: NGINX_ROUTE });

pageTest(
  "of an index each platform is shown, and what of it is here",
  async ({ page, proxy, upstream }) => {
    const [amd64, arm64] = ["amd64", "arm64"].map((architecture, i) =>
      makeImage({ seed: 20 + i, platform: { ...HERE, architecture } })
    ) as [Image, Image];
    const index = makeIndex([amd64, arm64]);
    upstream.add("library/two", "1", index);
    await whole(`${proxy.url}/v2/library/two/manifests/1`);
    await pull(proxy, { repository: "library/two", tag: amd64.digest, image: amd64 });
    await page.goto(
      page.url().replace(/#.*|$/, "#/image?registry=docker.io&repository=library/two&tag=1"),
    );
    const parts = page.locator(".part .part > summary");
    await parts.nth(1).waitFor();
    assertEquals((await parts.allInnerTexts()).map((text) => text.replace(/\s+/g, " ")), [
      `${HERE.os}/amd64 1 layer, ${sizeText(amd64)} cached`,
      `${HERE.os}/arm64 not cached`,
    ]);
  },
);

function sizeText(image: Image): string {
  const bytes = image.blobs.reduce((sum, { size }) => sum + size, 0);
  return `${Number((bytes / 1024).toFixed(1))} KiB`;
}

pageTest("a tag is removed once that is confirmed, and not before", async (all) => {
  const { page, proxy } = all;
  await page.getByRole("button", { name: "Remove tag" }).click();
  const dialog = page.getByRole("dialog", { name: "Remove this tag?" });
  await dialog.getByText("docker.io/library/nginx:1", { exact: true }).waitFor();
  await page.keyboard.press("Enter"); // on Cancel, where the focus is
  await dialog.waitFor({ state: "detached" });
  assertEquals((await Array.fromAsync(proxy.proxy.cache!.index.tags())).length, 1);
  await page.getByRole("button", { name: "Remove tag" }).click();
  await dialog.getByRole("button", { name: "Remove tag" }).click();
  await textOf(toast(all), /^Removed 1 tag, freed 2\d(\.\d)?\sKiB\.$/);
  await page.locator(".empty").waitFor();
  assertEquals(await Array.fromAsync(proxy.proxy.cache!.index.tags()), []);
}, { ...withNginx, route: NGINX_ROUTE });

pageTest("removing a repository removes all of its tags and says how many", async (all) => {
  const { page, proxy, upstream } = all;
  const other = makeImage({ seed: 9 });
  upstream.add("library/nginx", "2", other);
  await pull(proxy, { repository: "library/nginx", tag: "2", image: other });
  upstream.add("library/nginx-exporter", "1", other);
  await pull(proxy, { repository: "library/nginx-exporter", tag: "1", image: other });
  await page.getByRole("button", { name: "Remove repository" }).click();
  const dialog = page.getByRole("dialog", { name: "Remove this repository?" });
  await dialog.getByText("2 tags in the cache.").waitFor();
  await dialog.getByRole("button", { name: "Remove repository" }).click();
  await textOf(toast(all), /^Removed 2 tags/);
  const left = await Array.fromAsync(proxy.proxy.cache!.index.tags());
  assertEquals(left.map(({ repository }) => repository), ["library/nginx-exporter"]);
}, { ...withNginx, route: NGINX_ROUTE });

pageTest("refreshing a tag says whether it moved, or why nobody knows", async (all) => {
  const { page, upstream } = all;
  const refresh = page.getByRole("button", { name: "Refresh" });
  await refresh.click();
  await textOf(toast(all), /nginx:1 is up to date\.$/);
  const moved = makeImage({ seed: 10 });
  upstream.add("library/nginx", "1", moved);
  await refresh.click();
  await textOf(toast(all), /changed upstream/);
  await textOf(page.locator(".facts"), new RegExp(moved.digest.slice(0, 19)));
  upstream.control.failWith = 503;
  await refresh.click();
  await page.locator("#status.wrong").waitFor();
  assertStringIncludes(await toast(all).innerText(), "docker.io/library/nginx:1: ");
}, { ...withNginx, route: NGINX_ROUTE });

pageTest("warming shows each layer, and what could not be fetched", async (all) => {
  const { page, proxy, upstream } = all;
  upstream.add("library/nginx", "1", NGINX);
  await page.getByLabel("Images", { exact: true }).fill("nginx:1\nno/such:1");
  const start = page.getByRole("button", { name: "Warm", exact: true });
  await start.click();
  await textOf(page.locator(".result").first(), /Some parts could not be downloaded/);
  const nginx = page.getByRole("region", { name: "docker.io/library/nginx:1" }).locator("li");
  const states = (await nginx.allInnerTexts()).map((text) => text.split(/\s/)[0]);
  assertEquals(states.toSorted(), ["config", "layer", "layer", "manifest"]);
  assertEquals(await nginx.locator(".state-text", { hasText: /^downloaded/ }).count(), 4);
  const missing = page.getByRole("region", { name: "docker.io/no/such:1" });
  await textOf(missing, /failed\s*\S/);
  for (const { digest } of NGINX.blobs) assert(await proxy.proxy.cache!.index.blob(digest));
  await page.getByLabel("Images", { exact: true }).fill("nginx:1");
  await start.click();
  await textOf(page.locator(".result").first(), /The image is complete/);
  assertEquals(await nginx.locator(".state-text", { hasText: /^already cached/ }).count(), 4);
}, { route: "#/upkeep" });

pageTest("warming can be stopped, and begun again", async ({ page, upstream }) => {
  upstream.add("library/nginx", "1", NGINX);
  upstream.faults.add({ kind: "blob" }, { stallAt: 100 }, { times: 2 });
  await page.getByLabel("Images", { exact: true }).fill("nginx:1");
  await page.getByRole("button", { name: "Warm", exact: true }).click();
  await page.locator(".parts .running").first().waitFor();
  await page.getByRole("button", { name: "Stop" }).click();
  await textOf(page.locator(".result").first(), /^Stopped\.$/);
  assert(await page.getByRole("button", { name: "Warm", exact: true }).isEnabled());
}, { route: "#/upkeep" });

pageTest("verifying the store lists what was wrong", async ({ page, proxy }) => {
  const verify = async () => {
    await page.getByRole("button", { name: "Verify" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Verify" }).click();
  };
  const result = page.locator(".result").nth(1);
  await verify();
  await textOf(result, /^All content is intact\.$/);
  await textOf(page.locator(".task .numbers"), /^4 of 4 entries/);
  const { digest, size } = NGINX.layers[0]!;
  const hex = digest.slice("sha256:".length);
  const path = join(proxy.cacheDir, "blobs", "sha256", hex.slice(0, 2), hex);
  await Deno.writeFile(path, new Uint8Array(size));
  await verify();
  await textOf(result, /^1 damaged entry was removed from the cache\.$/);
  assertEquals(await page.locator(".digests code").getAttribute("title"), digest);
}, { ...withNginx, route: "#/upkeep" });

pageTest(
  "any image's name becomes the command through this proxy, ready to be copied",
  async ({ page }) => {
    await page.getByLabel("Address that clients use to reach the proxy").fill("proxy.lan:8080");
    await page.getByLabel("Image", { exact: true }).fill("ghcr.io/x/y:1");
    const command = "docker pull proxy.lan:8080/ghcr.io/x/y:1";
    await page.getByText(command, { exact: true }).waitFor();
    const button = page.getByRole("button", { name: "Copy: command for docker" });
    // Looked for before the click: it is said for two seconds alone, and a click may take as long.
    await Promise.all([button.filter({ hasText: "Copied" }).waitFor(), button.click()]);
    assertEquals(await page.evaluate("navigator.clipboard.readText()"), command);
    await page.getByLabel("Image", { exact: true }).fill("not an image");
    await textOf(page.locator("#command-problem"), /\S/);
    assertEquals(await page.locator(".commands").innerText(), "");
  },
  {
    route: "#/connect",
    context: { permissions: ["clipboard-read", "clipboard-write"] },
  },
);

pageTest(
  "an address that is none is told where it is typed, and what is shown stays",
  async ({ page }) => {
    const address = page.getByLabel("Address that clients use to reach the proxy");
    await address.fill("proxy.lan:8080");
    const docker = page.locator(".commands", { hasText: "docker pull proxy.lan:8080/" });
    await docker.waitFor();
    await address.fill("http://proxy.lan:8080/path");
    await page.getByText("without a path").waitFor();
    assertEquals(await address.getAttribute("aria-invalid"), "true");
    assert(await docker.isVisible());
    await address.fill("https://registry.lan");
    await page.locator(".commands", { hasText: "docker pull registry.lan/" }).waitFor();
    assertEquals(await address.getAttribute("aria-invalid"), null);
  },
  { route: "#/connect" },
);

pageTest("there is configuration of this instance for each kind of client", async ({ page }) => {
  await page.getByLabel("Address that clients use to reach the proxy").fill("https://proxy.lan");
  for (
    const [kind, path] of [
      ["Docker", "/etc/docker/daemon.json"],
      ["containerd", "/etc/containerd/certs.d/docker.io/hosts.toml"],
      ["Podman", "/etc/containers/registries.conf.d/"],
      ["BuildKit", "buildkitd.toml"],
      ["Kubernetes", "yaml"],
    ]
  ) {
    await page.getByRole("tab", { name: kind, exact: true }).click();
    const panel = page.getByRole("tabpanel", { name: kind });
    await panel.locator("figcaption", { hasText: path }).first().waitFor();
    await panel.locator("pre", { hasText: "proxy.lan" }).first().waitFor();
  }
}, { route: "#/connect" });
