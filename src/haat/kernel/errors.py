"""One class per reason a request can be refused, rendered as RFC 9457 problem details.

Every class carries a stable ``code``, an HTTP ``status``, a ``title`` and a ``detail`` sentence
that tells the user what to do. ``docs/errors.md`` lists them all; a test compares the two.
"""

from __future__ import annotations

from typing import Any, ClassVar


class HaatError(Exception):
    """A refusal with a reason. Subclasses set code, status and title; ``detail`` is for the user."""

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something failed on our side"
    default_detail: ClassVar[str] = "Try again; if it happens again, tell the operator this request id."

    def __init__(self, detail: str | None = None, **extensions: Any) -> None:
        self.detail = detail or self.default_detail
        self.extensions = extensions
        super().__init__(self.detail)

    @property
    def reason(self) -> str:
        """What a person reads who is shown one sentence: what is wrong with each field, or the detail."""
        errors = self.extensions.get("errors")
        if not errors or self.detail != self.default_detail:
            return self.detail
        return "; ".join(": ".join(filter(None, (one["field"], one["message"]))) for one in errors)

    def problem(self, request_id: str, instance: str | None = None) -> dict[str, Any]:
        """Return the problem+json members; ``status`` equals the HTTP status (RFC 9457, 3.1.2)."""
        body: dict[str, Any] = {
            "type": problem_type(self.code),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if instance is not None:
            body["instance"] = instance
        body.update(self.extensions)
        return body


def problem_type(code: str) -> str:
    """Return the URI that names a kind of problem: a URN, because each host is somebody's own."""
    return "urn:haat:problem:" + code.lower().replace("_", "-")


# --- the request itself -----------------------------------------------------------------------


class InvalidRequest(HaatError):
    code, status, title = "INVALID_REQUEST", 400, "The request is malformed"
    default_detail = "Correct the request and send it again."


class MalformedJson(HaatError):
    code, status, title = "MALFORMED_JSON", 400, "The body is not JSON"
    default_detail = "Send a JSON body that parses, with Content-Type: application/json."


class ValidationFailed(HaatError):
    """Fields of a well-formed request are wrong; ``errors`` lists ``{"field", "message"}``."""

    code, status, title = "VALIDATION_FAILED", 422, "Some fields need correcting"
    default_detail = "Correct the fields listed in `errors` and send it again."


class BodyTooLarge(HaatError):
    code, status, title = "BODY_TOO_LARGE", 413, "The body is too large"
    default_detail = "Send a smaller body; the limit is in `limit_bytes`."


class HeadersTooLarge(HaatError):
    code, status, title = "HEADERS_TOO_LARGE", 431, "The headers are too large"
    default_detail = "Send fewer or shorter headers."


class TargetTooLong(HaatError):
    code, status, title = "TARGET_TOO_LONG", 414, "The request target is too long"
    default_detail = "Send a shorter path and query; what is long belongs in the body."


class ExpectationFailed(HaatError):
    code, status, title = "EXPECTATION_FAILED", 417, "The expectation cannot be met"
    default_detail = "The only expectation met here is `Expect: 100-continue`."


class NotSupported(HaatError):
    code, status, title = "NOT_SUPPORTED", 501, "The gateway does not do this"
    default_detail = "Use a method and a transfer coding that the gateway knows."


class UpgradeRequired(HaatError):
    code, status, title = "UPGRADE_REQUIRED", 426, "The opening handshake is not WebSocket's"
    default_detail = "Send `Sec-WebSocket-Version: 13` and a `Sec-WebSocket-Key` (RFC 6455, 4.1)."


class VersionNotSupported(HaatError):
    code, status, title = "HTTP_VERSION_NOT_SUPPORTED", 505, "This version of HTTP is not spoken here"
    default_detail = "Use HTTP/1.1; HTTP/2 is the business of the ingress before the gateway."


class RequestTimeout(HaatError):
    code, status, title = "REQUEST_TIMEOUT", 408, "The request arrived too slowly"
    default_detail = "Send the whole request sooner."


class NotFound(HaatError):
    code, status, title = "NOT_FOUND", 404, "There is nothing here"
    default_detail = "Check the address; what it named does not exist or is not yours."


class MethodNotAllowed(HaatError):
    code, status, title = "METHOD_NOT_ALLOWED", 405, "This address does not take that method"
    default_detail = "Use a method listed in the Allow header."


class Conflict(HaatError):
    code, status, title = "CONFLICT", 409, "The state does not allow this"
    default_detail = "Reload the present state and decide again."


class ConcurrentChange(Conflict):
    code, title = "CONCURRENT_CHANGE", "Somebody changed this at the same time"


# --- who is asking ----------------------------------------------------------------------------


class Unauthenticated(HaatError):
    code, status, title = "UNAUTHENTICATED", 401, "No credential was given"
    default_detail = "Send your API key as `Authorization: Bearer …` or `X-API-Key: …`."


class InvalidCredential(HaatError):
    code, status, title = "INVALID_CREDENTIAL", 401, "The API key is not valid"
    default_detail = "Check that the whole key was copied, or create a new one in the portal."


class ExpiredCredential(HaatError):
    code, status, title = "EXPIRED_CREDENTIAL", 401, "The API key has expired"
    default_detail = "Create a new key in the portal."


class RevokedCredential(HaatError):
    code, status, title = "REVOKED_CREDENTIAL", 401, "The API key was revoked"
    default_detail = "Use another key of the application or create a new one in the portal."


class SignInFailed(HaatError):
    code, status, title = "SIGN_IN_FAILED", 401, "E-mail or password is wrong"
    default_detail = "Check both and try again."


class PermissionDenied(HaatError):
    code, status, title = "PERMISSION_DENIED", 403, "Your role does not allow this"
    default_detail = "Ask an administrator of your organisation."


class SwitchedOff(HaatError):
    """The operator has switched something off; ``switch`` is the key of its flag."""

    code, status, title = "SWITCHED_OFF", 403, "The operator has switched this off"
    default_detail = "Try again another day, or ask the operator when it is back."


class FormExpired(HaatError):
    """A form came back without the token its page was given: it is old, or another site sent it."""

    code, status, title = "FORM_EXPIRED", 403, "The form is out of date"
    default_detail = "Go back, reload the page, and send the form again."


class LinkOver(HaatError):
    """A link that came by mail opens nothing: it was used or withdrawn, or is too old."""

    code, status, title = "LINK_OVER", 410, "The link is not open any more"
    default_detail = "Ask for a new one."


# --- the call path ----------------------------------------------------------------------------


class ServiceNotFound(HaatError):
    code, status, title = "SERVICE_NOT_FOUND", 404, "No such service"
    default_detail = "Check provider, service and version against the catalog."


class ServiceSuspended(HaatError):
    code, status, title = "SERVICE_SUSPENDED", 403, "The service is suspended"
    default_detail = "The operator has suspended it; its page in the catalog says why."


class ServiceInMaintenance(HaatError):
    """Its provider has announced that it takes no calls for a time; ``until`` says when that ends."""

    code, status, title = "SERVICE_IN_MAINTENANCE", 503, "The service is being maintained"
    default_detail = "Try again when the announced window is over, after the seconds in Retry-After."


class NotSubscribed(HaatError):
    code, status, title = "NOT_SUBSCRIBED", 403, "The application is not subscribed"
    default_detail = "Subscribe the application to this service in the catalog."


class OutOfScope(HaatError):
    """A key was made for some services, and this is none of them; ``opens`` lists those that are."""

    code, status, title = "OUT_OF_SCOPE", 403, "The key does not open this service"
    default_detail = "Use another key of the application, or make one that opens this service."


class DataPolicyRefused(HaatError):
    """``demanded`` and ``service`` say what the application demands and what the service says of itself."""

    code, status, title = "DATA_POLICY", 403, "The application's data policy forbids this service"
    default_detail = "Choose another service in the catalog, or change the application's policy."


class VersionRetired(HaatError):
    """The version, or its whole service, is past its sunset; ``successor`` names what follows it."""

    code, status, title = "VERSION_RETIRED", 410, "The version has been retired"
    default_detail = "Move to the version in `successor`, or find another service in the catalog."


class ContentRefused(HaatError):
    """A guard does not let this content pass: of a request, or of a provider's answer."""

    code, status, title = "CONTENT_REFUSED", 422, "The content is not let through"
    default_detail = "Change what the text says and send it again; the call is not billed."


class PluginFailed(HaatError):
    """A plugin that must see every call could not look at this one."""

    code, status, title = "PLUGIN_FAILED", 503, "A check that every call must pass is out of order"
    default_detail = "Try again shortly; if it happens again, tell the operator this request id."


class RateLimited(HaatError):
    code, status, title = "RATE_LIMITED", 429, "Too many requests"
    default_detail = "Wait for the seconds in Retry-After, or move to a larger plan."


class QuotaExhausted(HaatError):
    code, status, title = "QUOTA_EXHAUSTED", 429, "The plan's quota is used up"
    default_detail = "Wait until the quota resets, or move to a larger plan."


class WalletEmpty(HaatError):
    """What the call may cost at most is more than the wallet has for new calls. Waiting does not cure it."""

    code, status, title = "WALLET_EMPTY", 402, "The wallet does not cover this call"
    default_detail = "Top up the wallet, or say in X-Haat-Max-Units that the call needs less."


class BudgetSpent(HaatError):
    """A budget that is a hard stop does not cover what the call may cost at most."""

    code, status, title = "BUDGET_SPENT", 429, "The month's budget does not cover this call"
    default_detail = "Wait for the next month, raise the budget, or say in X-Haat-Max-Units that the call needs less."


class WalletUnavailable(HaatError):
    """Whether wallet and budgets cover the call can't be found out, and what the gateway has of them does not."""

    code, status, title = "WALLET_UNAVAILABLE", 503, "The wallet can't be asked right now"
    default_detail = "Wait for the seconds in Retry-After and try again; the call is not billed."


class TooManyJobs(HaatError):
    """So many of the organisation's jobs have not ended that no further one is taken."""

    code, status, title = "TOO_MANY_JOBS", 429, "Too many jobs wait"
    default_detail = "Wait until some of your 1,000 open jobs have ended, or cancel some."


class TooManyFeeds(HaatError):
    code, status, title = "TOO_MANY_FEEDS", 429, "Too many live feeds are open"
    default_detail = "Close a page that shows live calls, or read the list of calls instead."


class Overloaded(HaatError):
    code, status, title = "OVERLOADED", 503, "Too much is going on"
    default_detail = "Wait for the seconds in Retry-After and try again."


class ProviderBusy(HaatError):
    """The provider's own pace, over all callers: not this caller's fault."""

    code, status, title = "PROVIDER_BUSY", 503, "The provider takes no more calls this second"
    default_detail = "Wait for the seconds in Retry-After and try again; the call is not billed."


class ProviderUnavailable(HaatError):
    code, status, title = "PROVIDER_UNAVAILABLE", 503, "The provider can't be reached"
    default_detail = "Try again shortly; the call is not billed."


class ProviderFailed(HaatError):
    code, status, title = "PROVIDER_FAILED", 502, "The provider gave no usable answer"
    default_detail = "Try again shortly; the call is not billed."


class ProviderTimeout(HaatError):
    code, status, title = "PROVIDER_TIMEOUT", 504, "The provider took too long"
    default_detail = "Try a shorter input or try again later; the call is not billed."


class JournalUnavailable(HaatError):
    code, status, title = "JOURNAL_UNAVAILABLE", 503, "Calls can't be metered right now"
    default_detail = "Nothing is served unmetered; try again shortly."


class JournalFull(JournalUnavailable):
    code, status, title = "JOURNAL_FULL", 503, "There is no space left to meter calls"
    default_detail = "Nothing is served unmetered; calls are taken again as soon as the operator has made space."


class IdempotencyInProgress(Conflict):
    code, title = "IDEMPOTENCY_IN_PROGRESS", "The first call with this key is still running"
    default_detail = "Wait for the seconds in Retry-After and send the same request again: you will get its answer."


class IdempotencyMismatch(HaatError):
    code, status, title = "IDEMPOTENCY_MISMATCH", 422, "The key was used for another request"
    default_detail = "Use a new Idempotency-Key for each new request, and the same one only to repeat it unchanged."


class IdempotencyUnknown(Conflict):
    """Its worker died, or its provider fell silent: the call may have been executed."""

    code, title = "IDEMPOTENCY_UNKNOWN", "Nobody knows what became of the first call"
    default_detail = (
        "The first call with this key may have been executed; it is not billed. Use a new key to have it done again."
    )


class IdempotencyNotKept(Conflict):
    code, title = "IDEMPOTENCY_NOT_KEPT", "The first call was executed and its answer was not kept"
    default_detail = (
        "Large answers are not kept, nor streams that broke off. Use a new key to have the call executed again."
    )


class IdempotencyUnavailable(HaatError):
    code, status, title = "IDEMPOTENCY_UNAVAILABLE", 503, "Idempotency keys can't be kept right now"
    default_detail = "The call was not executed, because it could not be protected: try again shortly."


# --- language tasks ---------------------------------------------------------------------------


class UnsupportedLanguage(HaatError):
    code, status, title = "UNSUPPORTED_LANGUAGE", 422, "The service does not cover that language"
    default_detail = "Use one of the languages in `supported`."


class UndeterminedLanguage(HaatError):
    """``reason`` says why no language can be named, ``candidates`` which ones it may be."""

    code, status, title = "UNDETERMINED_LANGUAGE", 422, "The language of the text can't be told"
    default_detail = "Say which language it is in, in `source`."


class InputTooLong(HaatError):
    code, status, title = "INPUT_TOO_LONG", 422, "The input is too long"
    default_detail = "Split the input; the limit is in `limit`."


class EngineMissing(HaatError):
    code, status, title = "ENGINE_MISSING", 503, "The engine is not installed"
    default_detail = "Ask the operator to run `make engines`; the call is not billed."


class EngineFailed(HaatError):
    code, status, title = "ENGINE_FAILED", 502, "The engine failed on this input"
    default_detail = "Try another input; the call is not billed."


class EngineTimeout(HaatError):
    code, status, title = "ENGINE_TIMEOUT", 504, "The engine took too long"
    default_detail = "Try a shorter input; the call is not billed."


# --- documents --------------------------------------------------------------------------------


class FontMissing(HaatError):
    """A page can't be set because the machine lacks a script's font."""

    code, status, title = "FONT_MISSING", 503, "A font for this page is not installed"
    default_detail = "Ask the operator to run `make fonts`; the invoice's data is there as JSON and CSV all the same."


# --- the market -------------------------------------------------------------------------------


class AlreadyExists(Conflict):
    code, title = "ALREADY_EXISTS", "That already exists"
    default_detail = "Choose another name, or use the one that exists."


class NotEnoughUse(HaatError):
    """A listing is reviewed by those who use it; ``calls`` were counted, ``least_calls`` are asked for."""

    code, status, title = "NOT_ENOUGH_USE", 403, "Reviews come from those who use the service"
    default_detail = "Call the service with a live key some more, and then say what you think of it."


class ReviewerRelated(HaatError):
    """Its provider, the operator, and who shares a member or a tax payer with the provider don't review a listing."""

    code, status, title = "REVIEWER_RELATED", 403, "You can't review this listing"
    default_detail = "Reviews come from buyers who have nothing to do with the provider."


class NoBankAccount(Conflict):
    """A provider is owed something and has not said where it is to be paid."""

    code, title = "NO_BANK_ACCOUNT", "There is no account to pay to"
    default_detail = "The provider enters its bank account under Payouts; until then its balance is carried on."


class AddressForbidden(HaatError):
    code, status, title = "ADDRESS_FORBIDDEN", 422, "That address can't be used"
    default_detail = "Use a public https address, or ask the operator to allow your network."


class AcceptanceFailed(HaatError):
    code, status, title = "ACCEPTANCE_FAILED", 422, "The service did not pass its acceptance call"
    default_detail = "Mend the endpoint and run `haat provider test URL` to see the same check."


class BundleMalformed(HaatError):
    """It is no zip file, has no manifest, or its files are not those that its list of digests names."""

    code, status, title = "BUNDLE_MALFORMED", 422, "The bundle is not what it should be"
    default_detail = "Make it again with `haat models bundle` and send that file unchanged."


class BundleUnsafe(HaatError):
    """A path leads out of it, something in it is no ordinary file, or it would unpack to far more than it is."""

    code, status, title = "BUNDLE_UNSAFE", 422, "The bundle holds something that is not unpacked here"
    default_detail = "Leave out links, devices, and paths that lead elsewhere, and make the bundle again."


class BundleTooLarge(HaatError):
    code, status, title = "BUNDLE_TOO_LARGE", 413, "The bundle is too large"
    default_detail = "Leave out what the model doesn't need; the limit is in `limit`."


class BundleUnsigned(HaatError):
    """It has no signature, one that doesn't fit, or one by a key that its organisation has not registered."""

    code, status, title = "BUNDLE_UNSIGNED", 422, "The bundle's signature can't be trusted"
    default_detail = "Register your key with `haat models keys --register` and sign the bundle with it."


class MailUndelivered(HaatError):
    code, status, title = "MAIL_UNDELIVERED", 503, "The mail could not be delivered"
    default_detail = "The mail server refused it; it is retried."
