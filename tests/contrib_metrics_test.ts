import { assert, assertEquals } from "@std/assert";
import { LoopLag } from "../lib/admin/loop_lag.ts";
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
  const lag = new LoopLag();
  const { text } = await new Metrics(proxy.proxy, lag).render();
  lag.close();
  const families = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].flatMap(([, name, type]) =>
    type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name!]
  );
  for (const file of [DASHBOARD, ALERTS]) {
    const asked = metricsIn(await Deno.readTextFile(file));
    assert(asked.size > 5);
    assertEquals([...asked].filter((name) => !families.includes(name)), [], file.pathname);
  }
});

Deno.test({
  name: "promtool finds the alert rules right",
  ignore: which("promtool") === undefined,
  async fn() {
    const { code, stdout, stderr } = await run(which("promtool")!, [
      "check",
      "rules",
      ALERTS.pathname,
    ]);
    assertEquals(code, 0, stdout + stderr);
  },
});
