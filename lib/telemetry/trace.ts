/**
 * Spans for who traces (`OTEL_DENO=true`): Deno makes one per request and exports them all; what happens
 * within a request is told here.
 *
 * @module
 */

/** As much of an OpenTelemetry span as is used. */
interface Span {
  recordException(error: Error): void;
  setStatus(status: { code: number; message?: string }): void;
  end(): void;
}

/** As much of an OpenTelemetry tracer as is used. */
interface Tracer {
  startActiveSpan<T>(
    name: string,
    options: { attributes: Readonly<Record<string, string>> },
    work: (span: Span) => T,
  ): T;
}

/** OpenTelemetry's `SpanStatusCode.ERROR`. */
const ERROR = 2;

let tracer: Tracer | undefined;

/** Makes {@linkcode span} tell what it is given, from now on. */
export function startTracing(): void {
  // Deno's own provider, to which OpenTelemetry's package would lead.
  tracer = Deno.telemetry.tracerProvider.getTracer("deno-docker-proxy");
}

/** The result of `work`, told as a span below the one that is active. Attributes hold no secret. */
export async function span<T>(
  name: "cache" | "token" | "upstream",
  attributes: Readonly<Record<string, string>>,
  work: () => Promise<T>,
): Promise<T> {
  if (!tracer) return await work();
  return await tracer.startActiveSpan(name, { attributes }, async (span) => {
    try {
      return await work();
    } catch (error) {
      span.recordException(error as Error);
      span.setStatus({ code: ERROR, message: (error as Error).message });
      throw error;
    } finally {
      span.end();
    }
  });
}
