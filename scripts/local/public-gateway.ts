/** What the public gateway does to a request before a function sees it: nobody outside speaks as the platform. */

const FOREIGN = /^(x-forwarded-|x-real-ip$|forwarded$|ce-|knative-|k-|x-tenant-id$|x-user-id$|aau-)/;

/** The request without headers that only the platform may set. */
export function stripForeignHeaders(request: Request): Request {
  for (const name of request.headers.keys()) {
    if (!FOREIGN.test(name)) continue;
    const headers = new Headers();
    for (const [key, value] of request.headers) if (!FOREIGN.test(key)) headers.append(key, value);
    return new Request(request, { headers });
  }
  return request;
}
