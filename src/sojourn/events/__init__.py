"""What can be observed. Each event is a past-tense fact; ``sojourn.bus.Bus`` delivers it to observers.

Emitting costs one test when nobody listens. Observers are called on the event loop and must return at once.
"""

from __future__ import annotations

from sojourn.events.connections import AcceptPaused, AcceptResumed, ConnectionEnded, ConnectionGrewOld, ConnectionOpened
from sojourn.events.diagnosis import LeakFound, LeaseOverdue, LeaseReturned, LoopStalled
from sojourn.events.drain import DrainCounted, DrainCut, DrainParticipantEnded, DrainPhaseChanged, DrainReported
from sojourn.events.guards import CircuitChanged, PressureChanged
from sojourn.events.journal import TaskBegan, TaskEnded, TaskHandedOver, TaskLost
from sojourn.events.requests import ApplicationFailed, CallerDeadline, DeadlineMissed, RequestEnded, RequestLimited
from sojourn.events.server import ConfigChanged, LifespanFailed, RegistrationFailed, ServerStarted, ServerStopped
from sojourn.events.stores import StoreAway, StoreBack
from sojourn.events.tasks import TaskFailed, TaskSurvived
from sojourn.events.websockets import WebSocketOpened
from sojourn.events.workers import RestartFailed, WorkerEnded, WorkerHung, WorkerReady, WorkerRetired, WorkerStarted

__all__ = [
    "AcceptPaused",
    "AcceptResumed",
    "ApplicationFailed",
    "CallerDeadline",
    "CircuitChanged",
    "ConfigChanged",
    "ConnectionEnded",
    "ConnectionGrewOld",
    "ConnectionOpened",
    "DeadlineMissed",
    "DrainCounted",
    "DrainCut",
    "DrainParticipantEnded",
    "DrainPhaseChanged",
    "DrainReported",
    "Event",
    "LeakFound",
    "LeaseOverdue",
    "LeaseReturned",
    "LifespanFailed",
    "LoopStalled",
    "PressureChanged",
    "RegistrationFailed",
    "RequestEnded",
    "RequestLimited",
    "RestartFailed",
    "ServerStarted",
    "ServerStopped",
    "StoreAway",
    "StoreBack",
    "TaskBegan",
    "TaskEnded",
    "TaskFailed",
    "TaskHandedOver",
    "TaskLost",
    "TaskSurvived",
    "WebSocketOpened",
    "WorkerEnded",
    "WorkerHung",
    "WorkerReady",
    "WorkerRetired",
    "WorkerStarted",
]

Event = (
    ConnectionOpened
    | ConnectionGrewOld
    | ConnectionEnded
    | RequestEnded
    | RequestLimited
    | CallerDeadline
    | WebSocketOpened
    | DeadlineMissed
    | TaskFailed
    | TaskSurvived
    | TaskBegan
    | TaskEnded
    | TaskHandedOver
    | TaskLost
    | ApplicationFailed
    | LoopStalled
    | PressureChanged
    | CircuitChanged
    | LeakFound
    | LeaseOverdue
    | LeaseReturned
    | ConfigChanged
    | AcceptPaused
    | AcceptResumed
    | DrainPhaseChanged
    | DrainCounted
    | DrainCut
    | DrainParticipantEnded
    | DrainReported
    | LifespanFailed
    | ServerStarted
    | ServerStopped
    | StoreAway
    | StoreBack
    | WorkerStarted
    | WorkerReady
    | WorkerRetired
    | WorkerEnded
    | WorkerHung
    | RestartFailed
    | RegistrationFailed
)
