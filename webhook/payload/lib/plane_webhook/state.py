"""Whether the broker of this process is in trouble. Pure: it knows no broker, no thread and no clock.

    healthy   a task is published and confirmed within the call
    troubled  tasks are kept; there is no connection that takes any
    draining  tasks are still kept, for those before them have to go first; a connection delivers them

    healthy --trouble--> troubled --connected--> draining --over--> healthy
                            ^----------trouble-------'

Times are seconds of any clock that only goes forward. Whoever calls it holds a lock.
"""

HEALTHY, TROUBLED, DRAINING = "healthy", "troubled", "draining"


class State:
    def __init__(self):
        self.name, self.since, self.cause, self.lasting, self.kept = HEALTHY, None, "", False, 0
        self.drains = self.told = None  # `told`: whether it was lasting, as of the last news

    @property
    def healthy(self):
        return self.name == HEALTHY

    def trouble(self, now, cause, lasting=False):
        """The broker failed. `lasting`: for a reason that time doesn't heal. True if that is news."""
        news = self.name == HEALTHY or lasting != self.told
        if self.name == HEALTHY:
            self.since, self.kept = now, 0
        self.name, self.cause, self.lasting, self.told = TROUBLED, cause, lasting, lasting
        return news

    def connected(self, now):
        """There is a connection again."""
        if self.name == TROUBLED:
            self.name, self.lasting, self.drains = DRAINING, False, now

    def draining(self, now):
        """For how long a connection has been delivering."""
        return now - self.drains if self.name == DRAINING else 0

    def over(self, now):
        """All that was kept has been delivered, or is waited for no more.

        Returns for how long it was in trouble, how many it kept and how long it delivered; None if it was in none.
        """
        if self.name != DRAINING:
            return None
        past = now - self.since, self.kept, now - self.drains
        self.__init__()
        return past

    def says(self, now):
        """The state for `proof`: a dict of plain values."""
        said = {"state": self.name}
        if not self.healthy:
            said.update(seconds=round(now - self.since, 1), cause=self.cause, kept=self.kept)
        return said
