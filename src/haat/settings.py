"""Settings: `HAAT_…` variables, or a TOML file named by `HAAT_CONFIG` (default `haat.toml`).

A variable wins over the file, the file over the default. ``docs/configuration.md`` describes every
setting; a test holds the two together. Nothing reads settings at import: entry points call
`load_settings` once and hand the result on.
"""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from haat.kernel.errors import ValidationFailed
from haat.kernel.gstin import check_gstin
from haat.language import parse_tag


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="HAAT_", extra="ignore", validate_default=True)

    data_dir: Path = Field(Path(".haat"), description="Where everything this platform keeps on disk lives.")
    master_key: SecretStr | None = Field(
        None, description="Base64 of the 32-byte master key. Unset: `data_dir/secrets/master.key`, made on first use."
    )
    environment: Literal["development", "production"] = Field(
        "development", description="`development` lets providers use http and the networks in `allowed_networks`."
    )

    host: str = Field("127.0.0.1", description="Address that control, portal and gateway listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the control API and the portal.")
    gateway_port: int = Field(8080, ge=0, le=65535, description="Port of the gateway.")
    gateway_workers: int = Field(
        1, ge=1, le=64, description="Processes that the gateway is; about one for each core it may use."
    )
    models_port: int = Field(8090, ge=0, le=65535, description="Loopback port of the service execution module.")
    models_memory_mb: int = Field(0, ge=0, description="Memory of all models together; 0 takes 70 % of the machine's.")
    models_engine: Literal["local", "ray"] = Field(
        "local", description="Who runs models: worker processes on this machine, or a Ray cluster (`haat[ray]`)."
    )
    ray_address: str | None = Field(
        None,
        description="The Ray cluster to join, `auto` for the one on this machine. Unset: one of its own.",
    )
    public_url: str | None = Field(
        None, description="Address of the portal as users type it; default from host and port."
    )
    gateway_url: str | None = Field(
        None, description="Address of the gateway as callers use it; default from host and port."
    )

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL to use as its owner (migrations). Unset: the embedded server in `data_dir`."
    )
    database_pool_size: int = Field(10, ge=1, le=200, description="Most connections a process keeps to PostgreSQL.")
    postgres_account: str = Field(
        "haat-postgres", description="Account the embedded PostgreSQL runs as when Haat is started by root."
    )

    allowed_networks: list[str] = Field(
        [], description="Networks (CIDR) that every provider's endpoint may lie in although they are not public."
    )

    smtp_host: str = Field("127.0.0.1", description="Host of the mail server.")
    smtp_port: int = Field(0, ge=0, le=65535, description="Port of the mail server; 0 keeps mails in `data_dir/mail`.")
    smtp_user: str | None = Field(None, description="Account at the mail server.")
    smtp_password: SecretStr | None = Field(None, description="Password at the mail server.")
    smtp_tls: Literal["none", "starttls", "implicit"] = Field("none", description="How mail is encrypted on its way.")
    mail_from: str = Field("Haat <haat@localhost>", description="Sender of the platform's mails.")

    journal_sync_ms: int = Field(
        200, ge=0, le=60_000, description="Milliseconds of metering a power cut may lose; 0 waits for the disk."
    )
    journal_segment_bytes: int = Field(
        32 * 1024 * 1024, ge=4096, description="Size at which a journal segment is sealed and a new one begun."
    )
    journal_keep_hours: float = Field(
        24, ge=0, description="Hours that a journal segment is kept after all of it has reached the usage store."
    )
    journal_max_bytes: int = Field(
        0, ge=0, description="Most bytes of a worker's journal before calls are refused; 0 leaves it to the disk."
    )
    ship_interval_ms: int = Field(200, ge=10, le=60_000, description="How often the shipper looks for new records.")

    tls_certificate: Path | None = Field(
        None, description="PEM file of the gateway's certificate and its chain; read again when it changes."
    )
    tls_key: Path | None = Field(None, description="PEM file of that certificate's private key.")
    max_body_bytes: int = Field(10 * 1024 * 1024, ge=1024, description="Largest request body the gateway takes.")
    max_header_bytes: int = Field(32 * 1024, ge=1024, description="Largest request head the gateway takes.")
    max_target_bytes: int = Field(8 * 1024, ge=256, description="Longest request target the gateway takes.")
    max_client_connections: int = Field(
        10_000, ge=1, description="Most client connections of a gateway process; further ones get 503, or its health."
    )
    header_timeout_seconds: float = Field(10, gt=0, description="Time a client has to send its request head.")
    keep_alive_seconds: float = Field(75, gt=0, description="Time an idle client connection is kept.")
    upstream_connections: int = Field(128, ge=1, description="Most connections to one upstream endpoint.")
    upstream_wait_seconds: float = Field(2, gt=0, description="Time a call waits for one of them before 503.")
    stream_max_seconds: float = Field(3600, gt=0, description="Longest time an answer may stream.")
    cache_bytes: int = Field(
        64 * 1024 * 1024, ge=0, description="Most memory for answers kept by each gateway process; 0 keeps none."
    )
    status_networks: list[str] = Field(
        [], description="Networks (CIDR) besides loopback that may read the gateway's `/status` and `/metrics`."
    )
    idempotency_keep_hours: int = Field(
        24, ge=24, description="Hours that an Idempotency-Key is remembered with its answer."
    )
    idempotency_answer_bytes: int = Field(
        1024 * 1024, ge=0, description="Largest answer that is kept for an Idempotency-Key."
    )
    trace_sample_ratio: float = Field(
        0, ge=0, le=1, description="Part of the traces that providers are asked to sample (W3C Trace Context)."
    )
    wallet_lease_seconds: float = Field(
        30, ge=5, le=3600, description="Time for which a gateway may draw calls from its part of a wallet or a budget."
    )
    shutdown_seconds: float = Field(30, gt=0, description="Time in-flight work is given when the platform stops.")

    plugins: dict[str, dict[str, Any]] = Field({}, description="What each plugin is told, by its name.")

    flags_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Flag service that gives the platform's flags by OFREP, in place of its own.",
    )
    flags_token: SecretStr | None = Field(None, description="Bearer token for that service.")
    flags_keep_seconds: float = Field(10, ge=0, description="How long its answers are kept before it is asked again.")
    feedback_keep_days: int = Field(365, ge=1, description="Days that feedback on answers is kept.")

    review_calls: int = Field(
        20, ge=1, description="Completed calls with live keys that an organisation needs before it reviews a service."
    )
    review_days: int = Field(90, ge=1, le=730, description="Days in which these calls must have been made.")

    portal_trial_visitors: Literal["off", "hosted", "all"] = Field(
        "hosted",
        description="Which services visitors without an account try at the operator's cost: those hosted here, or all.",
    )
    portal_trial_address_calls: int = Field(20, ge=1, description="Such calls a day for a network address.")
    portal_trial_service_calls: int = Field(500, ge=1, description="Such calls a day for a service.")

    operator_name: str = Field("Haat Operator", description="Supplier on the invoice.")
    operator_address: str = Field("1 Market Street, New Delhi 110001", description="Supplier's address on the invoice.")
    operator_gstin: str = Field("07AAACH0000H1ZF", description="Supplier's GSTIN on the invoice.")
    operator_state: str = Field("07", min_length=2, max_length=2, description="Supplier's State as its GST code.")
    gst_rate: Decimal = Field(Decimal("0.18"), ge=0, le=1, description="GST on the operator's services.")
    sac_code: str = Field("998439", description="SAC printed on invoice lines.")
    invoice_prefix: str = Field(
        "HT",
        pattern=r"^[A-Z]{1,3}$",
        description="First letters of an invoice's serial; credit notes add a C, debit notes a D, statements an S.",
    )
    billing: Literal["off", "showback", "invoice"] = Field(
        "invoice", description="`invoice` bills; `showback` shows what it would cost, as statements; `off` neither."
    )
    supply: Literal["principal", "agent"] = Field(
        "principal", description="Whether the operator sells in its own name or as its providers' agent."
    )
    payment_days: int = Field(15, ge=0, le=365, description="Days after its date by which an invoice is to be paid.")
    reminder_days: list[int] = Field(
        [-3, 1, 7, 14], max_length=20, description="Days after an invoice is due on which it is reminded of."
    )
    invoice_language: str = Field(
        "en", description="Language of invoices on paper and in mails for organisations that did not choose one."
    )
    fonts_dir: Path = Field(
        Path("/usr/share/fonts/truetype/noto"), description="Folder of the Noto fonts that invoices are printed with."
    )
    provider_share: Decimal = Field(Decimal("0.70"), ge=0, le=1, description="Provider's share of net charges.")
    payout_minimum: Decimal = Field(
        Decimal("500"), ge=0, decimal_places=2, description="Rupees below which a provider's balance is carried on."
    )
    payout_delay_days: int = Field(
        7, ge=0, le=365, description="Days from a statement's close until it may be paid out."
    )
    withholdings: list[dict[str, Any]] = Field(
        [], description="Taxes withheld from providers, each with its rate and the date from which it holds."
    )
    dispute_days: int = Field(
        60, ge=1, le=3650, description="Days after its issue for which a statement or an invoice can be contested."
    )
    sla_probe_minutes: int = Field(
        1, ge=0, le=60, description="Minutes between two probes of a service; 0 probes nobody."
    )
    maintenance_notice_hours: float = Field(
        48, ge=0, le=720, description="Hours that maintenance is announced ahead, at least."
    )
    maintenance_month_hours: float = Field(
        8, gt=0, le=100, description="Most hours of announced maintenance that a listing has in a month."
    )
    zone: str = Field("Asia/Kolkata", description="Time zone of an organisation that did not choose one.")

    session_hours: int = Field(12, ge=1, le=720, description="Length of a portal session.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")

    @field_validator("invoice_language")
    @classmethod
    def _known_language(cls, tag: str) -> str:
        return str(parse_tag(tag))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: Any,
        env_settings: Any,
        dotenv_settings: Any,
        file_secret_settings: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = Path(os.environ.get("HAAT_CONFIG", "haat.toml"))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)

    @field_validator("operator_gstin")
    @classmethod
    def _registered(cls, gstin: str) -> str:
        try:
            return check_gstin(gstin)
        except ValidationFailed as error:
            raise ValueError(error.extensions["errors"][0]["message"]) from error

    @property
    def portal_address(self) -> str:
        return self.public_url or f"http://{self.host}:{self.port}"

    @property
    def gateway_address(self) -> str:
        scheme = "https" if self.tls_certificate is not None else "http"
        return self.gateway_url or f"{scheme}://{self.host}:{self.gateway_port}"

    @property
    def models_address(self) -> str:
        return f"http://127.0.0.1:{self.models_port}"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ``overrides`` that are not None (command-line options) win over all."""
    if os.environ.get("HAAT_CONFIG") and not Path(os.environ["HAAT_CONFIG"]).is_file():
        raise FileNotFoundError(f"HAAT_CONFIG names {os.environ['HAAT_CONFIG']}, which is not a file")
    settings = Settings(**{name: value for name, value in overrides.items() if value is not None})
    return settings.model_copy(update={"data_dir": settings.data_dir.absolute()})
