from asgd_lab.api import compare as compare
from asgd_lab.api import explain as explain
from asgd_lab.api import preset as preset
from asgd_lab.api import replay as replay
from asgd_lab.api import report as report
from asgd_lab.api import run as run
from asgd_lab.api import sweep as sweep
from asgd_lab.backends.outcome import Progress as Progress
from asgd_lab.comparisons import Comparison as Comparison
from asgd_lab.composed import Algorithm as Algorithm
from asgd_lab.counterfactual.explanation import Explanation as Explanation
from asgd_lab.errors import Interrupted as Interrupted
from asgd_lab.errors import RunFailed as RunFailed
from asgd_lab.errors import ScenarioError as ScenarioError
from asgd_lab.replays import Replay as Replay
from asgd_lab.runs import Run as Run
from asgd_lab.scenario import Scenario as Scenario
from asgd_lab.sweeps import Sweep as Sweep

__version__: str
