"""Whether the broker of this process is in trouble. Pure: it knows no broker, no thread and no clock.

    healthy   a task is published and confirmed within the call
    troubled  tasks are kept; there is no connection that takes any
    draining  tasks are still kept, for those before them have to go first; a connection delivers them

    healthy --trouble--> troubled --connected--> draining --emptied--> healthy
                            ^----------trouble-------'

Times are seconds of any clock that only goes forward. Whoever calls it holds a lock.
"""

HEALTHY, TROUBLED, DRAINING = "healthy", "troubled", "draining"


class State:
    def __init__(self):
        self.name, self.since, self.cause, self.lasting, self.kept = HEALTHY, None, "", False, 0

    @property
    def healthy(self):
        return self.name == HEALTHY

    def trouble(self, now, cause, lasting=False):
        """The broker failed. `lasting`: for a reason that time doesn't heal. True if that is news."""
        news = self.name == HEALTHY or lasting > self.lasting
        if self.name == HEALTHY:
            self.since, self.kept = now, 0
        self.name, self.cause, self.lasting = TROUBLED, cause, lasting
        return news

    def connected(self):
        """There is a connection again."""
        if self.name == TROUBLED:
            self.name, self.lasting = DRAINING, False

    def emptied(self, now):
        """All that was kept has been delivered. Returns for how long and how many, or None if it wasn't in trouble."""
        if self.name != DRAINING:
            return None
        lasted, kept = now - self.since, self.kept
        self.__init__()
        return lasted, kept

    def says(self, now):
        """The state for `proof`: a dict of plain values."""
        said = {"state": self.name}
        if not self.healthy:
            said.update(seconds=round(now - self.since, 1), cause=self.cause, kept=self.kept)
        return said
