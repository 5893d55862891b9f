"""Makes what a new Plane needs before anybody can work in it. `manage.py shell` of the real Plane runs this text.

The last line that it prints is JSON: the ids that the programs of the lab ask for. It must never be imported.
"""

import json

from django.utils import timezone
from plane.db.models import APIToken, Profile, Project, ProjectMember, State, User, Workspace, WorkspaceMember
from plane.license.models import Instance

ADMIN = 20  # of Plane's roles
STATES = {"Backlog": "backlog", "Todo": "unstarted", "Doing": "started", "Done": "completed", "Gone": "cancelled"}

Instance.objects.update(is_setup_done=True, is_signup_screen_visited=True, last_checked_at=timezone.now())
users = []
for name in ("owner", "member"):
    user = User.objects.create(email=name + "@example.com", username=name, first_name=name, is_active=True)
    user.set_password("For-the-lab-1!")
    user.is_password_autoset = False
    user.save()
    Profile.objects.get_or_create(user=user)
    users.append(user)
workspace = Workspace.objects.create(slug="lab", name="Lab", owner=users[0])
project = Project.objects.create(workspace=workspace, identifier="LAB", name="Lab", created_by=users[0], network=2)
for user in users:
    WorkspaceMember.objects.create(workspace=workspace, member=user, role=ADMIN)
    ProjectMember.objects.create(project=project, workspace=workspace, member=user, role=ADMIN)
for number, (name, group) in enumerate(STATES.items()):
    State.objects.create(
        project=project, workspace=workspace, name=name, group=group, sequence=number * 1000, default=number == 0
    )
token = APIToken.objects.create(user=users[0], label="lab", workspace=workspace)
print(json.dumps({"member": str(users[1].id), "project": str(project.id), "token": token.token}))
