import { Refusal } from "../../shared/errors.ts";
import { http } from "../../shared/host/declare.ts";
import { PUBLIC_ROUTES } from "../../shared/host/public-routes.generated.ts";

const ROUTES = PUBLIC_ROUTES.map((route) => {
  const [method = "", path = ""] = route.split(" ");
  return { method, segments: path.split("/") };
});

/** Answers whatever no other function does: 405 where the path is known, else 404, in the error format of all others. */
export default http({
  name: "not-found",
  summary: "Answer unknown paths with 404 and known paths with another method with 405.",
  route: "GET /*",
  scope: "public",
  needs: [],
  replies: {},
  scale: { min: 0, max: 3, concurrency: 100 },

  async handle({ request }) {
    const segments = request.path.split("/");
    const allowed = ROUTES.filter(
      (route) => route.segments.length === segments.length && route.segments.every((own, i) => own === segments[i] || (own.startsWith("{") && segments[i] !== "")),
    );
    if (allowed.length === 0) throw new Refusal("NOT_FOUND");
    const methods = [...new Set(allowed.map((route) => route.method))].sort();
    throw new Refusal("METHOD_NOT_ALLOWED", { message: `This address answers to ${methods.join(" and ")}.`, headers: { allow: methods.join(", ") } });
  },
});
