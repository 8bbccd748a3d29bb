"""The composition root: the one place that builds the object graph.

Every process that works with facts opens a `Platform`; nothing else creates pools, reads secrets or
knows which adapter stands behind a port. The gateway does not come here: it keeps no database
connection on its call path and has a much smaller root of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache

import haat.catalog.jobs
import haat.feedback.jobs
import haat.identity.jobs
import haat.invoices.jobs
import haat.invoices.mails
import haat.jobs.jobs
import haat.partners.jobs
import haat.registry.jobs
import haat.reviews.jobs
import haat.rollouts.jobs
import haat.settlement.jobs
import haat.sla.jobs
import haat.wallet.jobs
from haat.catalog.discovery import Discovery
from haat.catalog.service import Catalog
from haat.content.reading import Library
from haat.content.reports import Reports
from haat.content.service import Content
from haat.content.translator import GatewayTranslator
from haat.feedback.service import Feedback
from haat.flags.service import Flags
from haat.flags.switchboard import Switchboard
from haat.identity.access import Access
from haat.identity.members import Members
from haat.identity.service import Identity
from haat.infra.audit import Audit
from haat.infra.dsn import dsn_for
from haat.infra.jobs import Jobs, Schedule, Task
from haat.infra.keyring import Keyring, keyring_of
from haat.infra.letters import MailTemplate
from haat.infra.mail import Mail, mail_for
from haat.infra.net import parse_networks
from haat.infra.postgres import Database
from haat.infra.projections import Projection
from haat.invoices.credits import credit
from haat.invoices.papers import Papers
from haat.invoices.payments import Payments
from haat.invoices.projection import INVOICES
from haat.invoices.runs import BillingRuns
from haat.invoices.service import Invoices
from haat.jobs.files import Files
from haat.jobs.service import CallerJobs
from haat.jobs.webhooks import Webhooks
from haat.kernel.clock import Clock, SystemClock
from haat.kernel.events import EventHandler
from haat.ledger.projection import BALANCES
from haat.ledger.service import Ledger
from haat.partners.service import Partners
from haat.plugins.manager import brought_payment_providers, brought_registrar
from haat.rating.estimate import Estimator
from haat.rating.service import Rating
from haat.rating.simulation import Simulator
from haat.registry.service import Registry
from haat.reviews.service import Reviews
from haat.rollouts.experiments import Experiments
from haat.rollouts.outcomes import FeedbackOutcomes
from haat.rollouts.service import Rollouts
from haat.settings import Settings
from haat.settlement.bank_answers import BankAnswers
from haat.settlement.disputes import Disputes
from haat.settlement.evidence import Evidence
from haat.settlement.payouts import Payouts
from haat.settlement.projection import SETTLEMENTS
from haat.settlement.service import Settlements
from haat.settlement.shares import Shares
from haat.settlement.withholding import parse as parse_withholdings
from haat.sla.board import Board
from haat.sla.closing import Closing
from haat.sla.probing import Prober
from haat.sla.service import Sla
from haat.sla.watching import Watch
from haat.subscriptions.service import Subscriptions
from haat.usage.analytics import Analytics
from haat.usage.live import Live
from haat.usage.model import Pseudonyms
from haat.usage.service import Usage
from haat.usage.variants import Variants
from haat.wallet.budgets import Budgets
from haat.wallet.projection import WALLETS
from haat.wallet.service import Payer, Wallets

HANDLERS: tuple[EventHandler, ...] = (
    *haat.identity.jobs.HANDLERS,
    *haat.partners.jobs.HANDLERS,
    *haat.catalog.jobs.HANDLERS,
    *haat.registry.jobs.HANDLERS,
    *haat.rollouts.jobs.HANDLERS,
    *haat.jobs.jobs.HANDLERS,
    *haat.invoices.jobs.HANDLERS,
    *haat.wallet.jobs.HANDLERS,
    *haat.settlement.jobs.HANDLERS,
    *haat.sla.jobs.HANDLERS,
    *haat.invoices.mails.HANDLERS,
    *haat.reviews.jobs.HANDLERS,
)
"""What is done after which event, across all domains."""

TASKS: tuple[Task, ...] = (
    *haat.catalog.jobs.TASKS,
    *haat.jobs.jobs.TASKS,
    *haat.rollouts.jobs.TASKS,
    *haat.feedback.jobs.TASKS,
    *haat.invoices.jobs.TASKS,
    *haat.wallet.jobs.TASKS,
    *haat.sla.jobs.TASKS,
)
SCHEDULES: tuple[Schedule, ...] = (
    *haat.catalog.jobs.SCHEDULES,
    *haat.jobs.jobs.SCHEDULES,
    *haat.rollouts.jobs.SCHEDULES,
    *haat.feedback.jobs.SCHEDULES,
    *haat.invoices.jobs.SCHEDULES,
    *haat.wallet.jobs.SCHEDULES,
    *haat.sla.jobs.SCHEDULES,
)
"""What is done in its own time."""

MAILS: tuple[MailTemplate, ...] = (
    *haat.identity.jobs.MAILS,
    *haat.partners.jobs.MAILS,
    *haat.rollouts.jobs.MAILS,
    *haat.jobs.jobs.MAILS,
    *haat.wallet.jobs.MAILS,
    *haat.invoices.mails.MAILS,
    *haat.settlement.jobs.MAILS,
    *haat.sla.jobs.MAILS,
    *haat.reviews.jobs.MAILS,
)
"""The mails whose words the operator may write."""

PROJECTIONS: tuple[Projection, ...] = (BALANCES, WALLETS, INVOICES, SETTLEMENTS)
"""What can be made anew, in the order in which it can be done."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Everything a process needs, built once."""

    settings: Settings
    clock: Clock
    keyring: Keyring
    db: Database
    service_db: Database
    jobs: Jobs
    mail: Mail
    audit: Audit
    identity: Identity
    members: Members
    access: Access
    partners: Partners
    catalog: Catalog
    discovery: Discovery
    rollouts: Rollouts
    experiments: Experiments
    subscriptions: Subscriptions
    usage: Usage
    analytics: Analytics
    live: Live
    rating: Rating
    simulator: Simulator
    estimator: Estimator
    invoices: Invoices
    payments: Payments
    billing: BillingRuns
    papers: Papers
    settlements: Settlements
    payouts: Payouts
    bank_answers: BankAnswers
    disputes: Disputes
    evidence: Evidence
    shares: Shares
    sla: Sla
    sla_board: Board
    sla_watch: Watch
    sla_closing: Closing
    sla_prober: Prober
    ledger: Ledger
    wallets: Wallets
    budgets: Budgets
    registry: Registry
    flags: Flags
    switchboard: Switchboard
    feedback: Feedback
    content: Content
    library: Library
    phrase_reports: Reports
    reviews: Reviews
    caller_jobs: CallerJobs
    files: Files
    webhooks: Webhooks
    handlers: tuple[EventHandler, ...] = HANDLERS


def build_platform(
    settings: Settings, db: Database, service_db: Database, keyring: Keyring, clock: Clock, mail: Mail
) -> Platform:
    """Build the services on two open (or still closed) databases."""
    identity = Identity(db, clock, keyring, session_hours=settings.session_hours, zone=settings.zone)
    partners = Partners(db, clock)
    catalog = Catalog(
        db,
        clock,
        keyring,
        partners,
        allowed_networks=settings.allowed_networks,
        https_only=settings.environment == "production",
        provider_share=settings.provider_share,
        data_dir=settings.data_dir,
        models_address=settings.models_address,
    )
    discovery = Discovery(db, clock)
    pseudonyms = Pseudonyms(keyring.derive("customer-pseudonyms"))
    invoices = Invoices(db, clock, settings, wallets=Payer(settings.gst_rate), registrar=cache(brought_registrar))
    settlements = Settlements(
        db,
        clock,
        pseudonyms,
        invoices,
        withholdings=parse_withholdings(settings.withholdings),
        agent=settings.supply == "agent",
        zone=settings.zone,
    )
    variants = Variants(db)
    flags = Flags(db, clock)
    feedback = Feedback(db, clock, keep_days=settings.feedback_keep_days)
    jobs = Jobs(db, TASKS, SCHEDULES)
    sla_watch = Watch(db, clock, settings, catalog=catalog)
    return Platform(
        settings=settings,
        clock=clock,
        keyring=keyring,
        db=db,
        service_db=service_db,
        jobs=jobs,
        mail=mail,
        audit=Audit(db),
        identity=identity,
        members=Members(db, clock, keyring, identity),
        access=Access(db, clock, keyring, identity),
        partners=partners,
        catalog=catalog,
        discovery=discovery,
        rollouts=Rollouts(db, clock, catalog, partners, variants),
        experiments=Experiments(db, clock, catalog, partners, variants, sources=[FeedbackOutcomes(feedback)]),
        subscriptions=Subscriptions(db, clock, identity, discovery),
        usage=Usage(db, clock, pseudonyms),
        analytics=Analytics(db, clock, pseudonyms, settings.zone),
        live=Live(db, clock),
        rating=Rating(db, clock),
        simulator=Simulator(db, clock, pseudonyms),
        estimator=Estimator(db, clock, gst_rate=settings.gst_rate, zone=settings.zone),
        invoices=invoices,
        payments=Payments(db, clock, cache(brought_payment_providers)),
        billing=BillingRuns(db, clock, jobs, invoices, zone=settings.zone, settle=settlements.close_all),
        settlements=settlements,
        payouts=Payouts(db, clock, keyring, minimum=settings.payout_minimum, delay_days=settings.payout_delay_days),
        bank_answers=BankAnswers(db, clock),
        disputes=Disputes(db, clock, settlements, days=settings.dispute_days, credit=credit),
        evidence=Evidence(db, pseudonyms),
        shares=Shares(db, clock),
        sla=Sla(db, clock, settings, pseudonyms=pseudonyms),
        sla_board=Board(db, clock),
        sla_watch=sla_watch,
        sla_closing=Closing(db, clock, settings, watch=sla_watch, credit=credit, settle=settlements.close),
        sla_prober=Prober(db, clock, settings, keyring=keyring),
        papers=Papers(db, clock, settings, invoices),
        ledger=Ledger(db),
        wallets=Wallets(db, clock, settings.gst_rate),
        budgets=Budgets(db, clock),
        registry=Registry(db, clock, keyring, partners, catalog, settings),
        flags=flags,
        switchboard=Switchboard(db, flags, settings),
        feedback=feedback,
        content=Content(db, clock, identity, GatewayTranslator(identity, clock, settings.gateway_address), MAILS),
        library=Library(db, clock),
        phrase_reports=Reports(db, clock),
        reviews=Reviews(db, clock, discovery, least_calls=settings.review_calls, days=settings.review_days),
        caller_jobs=CallerJobs(db, clock, keyring, jobs),
        files=Files(db, clock),
        webhooks=Webhooks(
            db,
            clock,
            keyring,
            jobs,
            allowed=parse_networks(settings.allowed_networks),
            https_only=settings.environment == "production",
        ),
    )


@asynccontextmanager
async def open_platform(
    settings: Settings, *, clock: Clock | None = None, name: str = "haat"
) -> AsyncIterator[Platform]:
    """Yield the platform on open databases, and close them at the end.

    ``name`` is how the process shows up among PostgreSQL's connections.
    """
    keyring = keyring_of(settings)
    async with AsyncExitStack() as stack:
        size = settings.database_pool_size
        db = await stack.enter_async_context(
            Database(dsn_for(settings, keyring, "app"), max_size=size, application_name=name)
        )
        service_db = await stack.enter_async_context(
            Database(dsn_for(settings, keyring, "service"), max_size=size, min_size=0, application_name=name)
        )
        platform = build_platform(settings, db, service_db, keyring, clock or SystemClock(), mail_for(settings))
        await stack.enter_async_context(platform.switchboard.running())
        yield platform
