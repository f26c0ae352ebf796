import { assertEquals } from "@std/assert";
import {
  type DownloadQueues,
  downloadQueues,
  MAX_FILLS,
  MAX_FILLS_PER_CLIENT,
  MAX_PASSTHROUGH,
  MAX_PASSTHROUGH_PER_CLIENT,
  ownerOf,
} from "../../lib/limits/downloads.ts";
import { registryOf } from "../../lib/oci/registry.ts";
import { Stats } from "../../lib/telemetry/stats.ts";

const target = {
  registry: registryOf("docker", new URL("https://registry-1.docker.io")),
  repository: "library/app",
};

/** Has `client` enter until it has to wait; how many places it got. */
function placesOf(queue: DownloadQueues["fills"], client: Partial<Parameters<typeof ownerOf>[0]>) {
  let places = 0;
  while (queue.tryEnter(ownerOf({ target, ...client }))) places++;
  return places;
}

Deno.test("one client has 64 of the 512 places for blobs that are passed through", () => {
  const { passthrough } = downloadQueues({ stats: new Stats() });
  for (let i = 0; i < MAX_PASSTHROUGH / MAX_PASSTHROUGH_PER_CLIENT; i++) {
    assertEquals(placesOf(passthrough, { client: `192.0.2.${i}` }), MAX_PASSTHROUGH_PER_CLIENT);
  }
  assertEquals(placesOf(passthrough, { client: "198.51.100.1" }), 0);
  assertEquals(passthrough.running, MAX_PASSTHROUGH);
});

Deno.test("addresses of one IPv6 network share the places of one client, and clients without an address too", () => {
  const { fills } = downloadQueues({ stats: new Stats() });
  assertEquals(placesOf(fills, { client: "2001:db8::1" }), MAX_FILLS_PER_CLIENT);
  assertEquals(placesOf(fills, { client: "2001:db8::2" }), 0);
  assertEquals(placesOf(fills, {}), MAX_FILLS_PER_CLIENT);
  assertEquals(placesOf(fills, { client: "192.0.2.1" }), MAX_FILLS_PER_CLIENT);
  assertEquals(placesOf(fills, { client: "192.0.2.2" }), MAX_FILLS_PER_CLIENT);
  assertEquals([fills.running, placesOf(fills, { client: "192.0.2.3" })], [MAX_FILLS, 0]);
});

Deno.test("warming has places of its own, takes none of a client's, and never more than half", () => {
  const many = downloadQueues({ stats: new Stats() }).fills;
  assertEquals(placesOf(many, { client: "192.0.2.1", warming: true }), MAX_FILLS_PER_CLIENT);
  assertEquals(placesOf(many, { client: "192.0.2.1" }), MAX_FILLS_PER_CLIENT);
  const few = downloadQueues({ maxFills: 4, stats: new Stats() }).fills;
  assertEquals(placesOf(few, { warming: true }), 2);
  assertEquals(placesOf(few, { client: "192.0.2.1" }), 2);
  assertEquals(
    placesOf(downloadQueues({ maxFills: 1, stats: new Stats() }).fills, { warming: true }),
    1,
  );
});
