/**
 * Spans for who traces (`OTEL_DENO=true`): Deno makes one per request and exports them all; what happens
 * within a request is told here. Nothing of it is loaded otherwise.
 *
 * @module
 */
import type { Attributes, Tracer } from "@opentelemetry/api";

let tracer: Tracer | undefined;

/** Makes {@linkcode span} tell what it is given, from now on. */
export async function startTracing(): Promise<void> {
  const { trace } = await import("@opentelemetry/api");
  tracer = trace.getTracer("deno-docker-proxy");
}

/** The result of `work`, told as a span below the one that is active. Attributes hold no secret. */
export async function span<T>(
  name: "cache" | "token" | "upstream",
  attributes: Attributes,
  work: () => Promise<T>,
): Promise<T> {
  if (!tracer) return await work();
  return await tracer.startActiveSpan(name, { attributes }, async (span) => {
    try {
      return await work();
    } catch (error) {
      span.recordException(error as Error);
      // SpanStatusCode.ERROR; the enum would load the package.
      span.setStatus({ code: 2, message: (error as Error).message });
      throw error;
    } finally {
      span.end();
    }
  });
}
