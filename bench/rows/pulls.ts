/**
 * Whole pulls by real clients.
 *
 * @module
 */
import { startDockerd } from "../../tests/support/docker.ts";
import { makeImage } from "../../tests/support/image.ts";
import { must } from "../../tests/support/process.ts";
import { missing } from "../../tests/support/requirements.ts";
import { startRegistry } from "../../tests/support/upstream.ts";
import { check, ratios } from "../figures.ts";
import { alternate, type Bench, type Outcome, type Row, seriesOf } from "../row.ts";
import { REPOSITORY } from "../upstream.ts";

const LAYERS = 12;
const LAYER = 4 * 2 ** 20;
const TAG = "twelve";

type Source = "ours" | "docker-registry 2.8 itself";

/** Pulls through the proxy and straight from the registry behind it, in alternation. */
async function measurePulls(
  bench: Bench,
  pull: (host: string) => Promise<number>,
  prepare: () => Promise<void>,
): Promise<Outcome> {
  await using registry = await startRegistry();
  const layers = Array.from({ length: LAYERS }, () => LAYER);
  await registry.push(REPOSITORY, TAG, makeImage({ layers, seed: 77 }));
  const ours = await bench.peers.start("ours", { upstream: registry.url });
  try {
    const hosts = { "ours": ours.host, "docker-registry 2.8 itself": registry.host };
    const sources: readonly Source[] = ["ours", "docker-registry 2.8 itself"];
    for (const source of sources) { // fills the cache, and warms what the client has
      await prepare();
      await pull(hosts[source]);
    }
    const found = await alternate(bench, sources, async (source) => {
      await prepare();
      return { "seconds": await pull(hosts[source]) };
    });
    const of = (source: Source) => found.get(source)!.get("seconds")!;
    const values = ratios(of("ours"), of("docker-registry 2.8 itself"));
    const checks = [check("seconds by docker-registry", { values, target: { atMost: 1.05 } })];
    return { series: seriesOf(found), checks };
  } finally {
    await ours.stop();
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const firstByte = performance.now();
  await work();
  return (performance.now() - firstByte) / 1000;
}

function absent(tools: Parameters<typeof missing>[0]): Outcome | undefined {
  const names = missing(tools);
  if (names.length === 0) return undefined;
  return { series: [], checks: [], notes: [`Not measured: needs ${names.join(", ")}`] };
}

export const dockerPull: Row = {
  name: "docker-pull",
  title: `whole \`docker pull\` of an image of ${LAYERS} layers of 4 MiB, cached`,
  meaning:
    "The time that a person sees: a pull from the proxy beside one from a registry on the same machine.",
  async run(bench) {
    const unmeasured = absent(["root", "docker", "dockerd", "containerd", "docker-registry"]);
    if (unmeasured) return unmeasured;
    await using docker = await startDockerd();
    return await measurePulls(
      bench,
      (host) => timed(() => docker.must("pull", "--quiet", `${host}/${REPOSITORY}:${TAG}`)),
      () => docker.forget(),
    );
  },
};

export const skopeoCopy: Row = {
  name: "skopeo-copy",
  title: `\`skopeo copy\` of the same image to a folder, cached`,
  meaning: "The same without the engine's unpacking: six blobs at a time.",
  async run(bench) {
    const unmeasured = absent(["skopeo", "docker-registry"]);
    if (unmeasured) return unmeasured;
    const dir = await Deno.makeTempDir({ prefix: "bench-skopeo-" });
    const target = `${dir}/copy`;
    const remove = () => Deno.remove(target, { recursive: true }).catch(() => {});
    try {
      return await measurePulls(
        bench,
        (host) =>
          timed(() =>
            must("skopeo", [
              "copy",
              "--quiet",
              "--src-tls-verify=false",
              `docker://${host}/${REPOSITORY}:${TAG}`,
              `dir:${target}`,
            ])
          ),
        remove,
      );
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  },
};
