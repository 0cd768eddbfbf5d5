"""A token may belong to one fleet: that of the Envoys that carry it."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('controlplane', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='token',
            name='fleet',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='tokens', to='controlplane.fleet'),
        ),
    ]
