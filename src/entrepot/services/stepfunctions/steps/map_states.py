"""Map states in mode INLINE: their iterations, as many at once as may be."""

from entrepot.services.stepfunctions.language.definition import Map
from entrepot.services.stepfunctions.language.evaluation import Scope
from entrepot.services.stepfunctions.language.jsonata import JsonataScope
from entrepot.services.stepfunctions.state import Frame, Phase

from .map_runs import MapRuns
from .places import Place

MAP_CONCURRENCY_LIMIT = 40
"""Iterations of an inline Map that run at once at most. Source: Step Functions' service quotas."""


class MapStates(MapRuns):
    """What a step does about maps."""

    def _map(self, place: Place) -> None:
        state, frame = place.state, place.frame
        assert isinstance(state, Map)
        frame.token = ""
        if state.distribution is not None:
            self._map_run(place, state, state.distribution)
            return
        scope = self._effective(place)
        items, concurrency = state.items(scope), state.concurrency(scope)
        self._record(place, "MapStateStarted", {"length": len(items)})
        frame.phase = Phase.CHILDREN
        frame.concurrency = min(concurrency or MAP_CONCURRENCY_LIMIT, MAP_CONCURRENCY_LIMIT)
        frame.forget_children()
        frame.items = items
        self._start_iterations(place)
        self._check_children(place)

    def _start_iterations(self, place: Place) -> None:
        """Begin as many pending iterations as may run at once."""
        state, frame = place.state, place.frame
        assert isinstance(state, Map)
        items = frame.items or []
        while len(frame.children) < frame.concurrency and frame.begun < len(items):
            child = Frame(state.item_processor.start_at, None, item=items[frame.begun], index=frame.begun)
            self._start_iteration(place, state, place.child(child))
            frame.children.append(child)
            frame.begun += 1

    def _start_iteration(self, place: Place, state: Map, iteration: Place) -> None:
        child = iteration.frame
        child.last_event = place.frame.last_event
        self._record(iteration, "MapIterationStarted", {"name": state.name, "index": iteration.index})
        child.input = child.item
        if state.item_selector is not None:
            scope = self.scope(place)
            item = {"Item": {"Index": iteration.index, "Value": child.item}}
            context = {**scope.context, "Map": item}
            if state.is_jsonata:
                inner: Scope = JsonataScope({**scope.data, "context": context}, context, scope.variables)
            else:
                inner = Scope(self.select(state.input_path, scope), context, scope.variables)
            child.input = state.item_selector.evaluate(inner)
        self._ready.append(iteration)
