import { assert, assertEquals } from "@std/assert";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { blobsOf, makeImage } from "../support/image.ts";
import { startProxy } from "../support/proxy_process.ts";

interface Span {
  readonly name: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly traceId: string;
}

/** The spans in what an OTLP exporter posts as JSON. */
function spansIn(body: { resourceSpans?: { scopeSpans: { spans: Span[] }[] }[] }): Span[] {
  return (body.resourceSpans ?? []).flatMap(({ scopeSpans }) =>
    scopeSpans.flatMap(({ spans }) => spans)
  );
}

Deno.test("with OTEL_DENO a request is a span, with cache, token and upstream below it", async () => {
  const spans: Span[] = [];
  const collector = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    async (request) => {
      const body = await request.json();
      if (new URL(request.url).pathname === "/v1/traces") spans.push(...spansIn(body));
      return Response.json({});
    },
  );
  await using registry = await startFakeRegistry({ auth: "token" });
  const image = makeImage();
  registry.add("team/app", "1", image);
  const { digest } = blobsOf(image)[0]!;
  {
    await using proxy = await startProxy({
      env: {
        UPSTREAM_DOCKER: registry.url,
        OTEL_DENO: "true",
        OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${(collector.addr as Deno.NetAddr).port}`,
        OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
        OTEL_BSP_SCHEDULE_DELAY: "50",
      },
    });
    assertEquals((await whole(`${proxy.url}/v2/team/app/blobs/${digest}`)).digest, digest);
    const named = (name: string) => spans.find((span) => span.name === name);
    for (let tries = 0; !(named("cache") && named("token") && named("upstream")); tries++) {
      assert(tries < 200, spans.map(({ name }) => name).join());
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const parentOf = ({ parentSpanId }: Span) => spans.find((span) => span.spanId === parentSpanId);
    const [cache, token, upstream] = ["cache", "token", "upstream"].map((name) => named(name)!);
    while (!parentOf(cache!)) await new Promise((resolve) => setTimeout(resolve, 50));
    assertEquals(parentOf(cache!)?.name, "GET");
    assertEquals(parentOf(token!)?.name, "upstream");
    assertEquals(new Set([cache, token, upstream].map((span) => span!.traceId)).size, 1);
  }
  await collector.shutdown();
});
