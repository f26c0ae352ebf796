import { assert, assertEquals } from "@std/assert";
import { Metrics } from "../lib/admin/metrics.ts";
import { startFakeRegistry } from "./support/fake_registry.ts";
import { whole } from "./support/http.ts";
import { makeImage } from "./support/image.ts";
import { run } from "./support/process.ts";
import { startTestProxy } from "./support/proxy.ts";
import { which } from "./support/requirements.ts";

const DASHBOARD = new URL("../contrib/grafana/dashboard.json", import.meta.url);
const ALERTS = new URL("../contrib/prometheus/alerts.yaml", import.meta.url);

function metricsIn(text: string): Set<string> {
  return new Set([...text.matchAll(/registry_proxy_[a-z_]+/g)].map(([name]) => name));
}

Deno.test("dashboard and alerts ask for metrics that there are", async () => {
  await using registry = await startFakeRegistry();
  registry.add("team/app", "1", makeImage());
  await using proxy = await startTestProxy({ upstreams: { docker: registry } });
  await whole(`${proxy.url}/v2/team/app/manifests/1`);
  const { text } = await new Metrics(proxy.proxy).render();
  const families = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].flatMap(([, name, type]) =>
    type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name!]
  );
  for (const file of [DASHBOARD, ALERTS]) {
    const asked = metricsIn(await Deno.readTextFile(file));
    assert(asked.size > 5);
    assertEquals([...asked].filter((name) => !families.includes(name)), [], file.pathname);
  }
});

Deno.test("the texts that alerts are expected to have are those of the rules", async () => {
  const rules = await Deno.readTextFile(ALERTS);
  const expected = await Deno.readTextFile(new URL("contrib_alerts.yaml", import.meta.url));
  const textsIn = (yaml: string) =>
    [...yaml.matchAll(/summary: "?(.*?)"?(?: \})?$/gm)].map(([, text = ""]) => text);
  const patterns = textsIn(rules).map((text) =>
    new RegExp(`^${RegExp.escape(text).replaceAll(/\\\{\\\{.*?\\\}\\\}/g, "\\S+")}$`)
  );
  assertEquals(textsIn(expected).filter((text) => !patterns.some((one) => one.test(text))), []);
  assertEquals(patterns.length, textsIn(expected).length);
});

/** Runs promtool, where it is present; throws with what it says unless it exits with 0. */
async function promtool(args: string[], stdin = ""): Promise<string> {
  const { code, stdout, stderr } = await run(which("promtool")!, args, { stdin });
  assertEquals(code, 0, stdout + stderr);
  return stdout + stderr;
}

const ignore = which("promtool") === undefined;

Deno.test({
  name: "promtool finds the alert rules right",
  ignore,
  async fn() {
    await promtool(["check", "rules", ALERTS.pathname]);
  },
});

Deno.test({
  name: "each alert fires when it should, and none while all is well",
  ignore,
  async fn() {
    await promtool(["test", "rules", new URL("contrib_alerts.yaml", import.meta.url).pathname]);
  },
});

Deno.test({
  name: "promtool understands each query of the dashboard",
  ignore,
  async fn() {
    const found = [
      ...(await Deno.readTextFile(DASHBOARD)).matchAll(/"expr": ("(?:[^"\\]|\\.)*")/g),
    ];
    assert(found.length > 20);
    const rules = found.map(([, text], i) => ({
      record: `query:${i}`,
      expr: JSON.parse(text!).replace(/\$__(rate_interval|range)/g, "5m").replace(
        "$instance",
        ".*",
      ),
    }));
    const file = await Deno.makeTempFile({ suffix: ".json" });
    try {
      await Deno.writeTextFile(file, JSON.stringify({ groups: [{ name: "dashboard", rules }] }));
      await promtool(["check", "rules", file]);
    } finally {
      await Deno.remove(file);
    }
  },
});

Deno.test("each alert has a test", async () => {
  const names = [...(await Deno.readTextFile(ALERTS)).matchAll(/alert: (\w+)/g)].map(([, name]) =>
    name
  );
  const tests = await Deno.readTextFile(new URL("contrib_alerts.yaml", import.meta.url));
  const fired = [...tests.matchAll(/alertname: (\w+)\n +exp_alerts/g)].map(([, name]) => name);
  assertEquals(new Set(fired), new Set(names));
});

Deno.test({
  name: "promtool finds nothing to say of /metrics",
  ignore,
  async fn() {
    await using registry = await startFakeRegistry();
    registry.control.quota = { limit: 100, remaining: 90, window: 21_600 };
    registry.add("team/app", "1", makeImage());
    await using proxy = await startTestProxy({ upstreams: { docker: registry } });
    for (let i = 0; i < 2; i++) await whole(`${proxy.url}/v2/team/app/manifests/1`);
    proxy.stats.upstreamFailed("docker", "timeout");
    proxy.stats.upstreamRetried("docker");
    proxy.stats.rejected.add('wei"rd\\\n');
    const { text } = await new Metrics(proxy.proxy).render();
    assertEquals(await promtool(["check", "metrics"], text), "");
  },
});

Deno.test("what alerts watch is told from the start: of a series that begins with 1 nobody sees the first", async () => {
  await using proxy = await startTestProxy();
  const { text } = await new Metrics(proxy.proxy).render();
  const rules = await Deno.readTextFile(ALERTS);
  const watched = [...rules.matchAll(/increase\((\w+)(?:\{([^}]*)\})?\[/g)];
  assert(watched.length >= 5);
  for (const [series, name, label = ""] of watched) {
    assert(new RegExp(`^${name}\\{.*${label}.*\\} 0$`, "m").test(text), series);
  }
});

Deno.test("a quota is told of the name that clients mean", async () => {
  await using registry = await startFakeRegistry();
  registry.control.quota = { limit: 100, remaining: 90, window: 21_600 };
  registry.add("team/app", "1", makeImage());
  const upstreams = { "docker": registry, "docker-staging": registry };
  await using proxy = await startTestProxy({ upstreams });
  await whole(`${proxy.url}/v2/team/app/manifests/1`);
  const { text } = await new Metrics(proxy.proxy).render();
  assert(/^registry_proxy_quota_limit\{registry="docker",account="0"\} 100$/m.test(text), text);
});
