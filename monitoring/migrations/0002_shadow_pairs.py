import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('controlplane', '0001_initial'),
        ('monitoring', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='prediction',
            name='paired_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddIndex(
            model_name='prediction',
            index=models.Index(condition=models.Q(('paired_at__isnull', True), ('purpose', 'shadow')), fields=['version', 'id'], name='prediction_unpaired'),
        ),
        migrations.AddIndex(
            model_name='prediction',
            index=models.Index(condition=models.Q(('sampler', 'measure')), fields=['version', 'at'], name='prediction_measured'),
        ),
        migrations.AddIndex(
            model_name='outcome',
            index=models.Index(fields=['version', 'requested_at'], name='outcome_by_request'),
        ),
        migrations.CreateModel(
            name='ShadowDraw',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('share', models.FloatField()),
                ('until', models.DateTimeField()),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='controlplane.modelversion')),
                ('stable', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='controlplane.modelversion')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('version', 'stable'), name='one_shadow_draw_per_pair_of_versions')],
            },
        ),
        migrations.CreateModel(
            name='ShadowPair',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('request_id', models.CharField(max_length=128)),
                ('at', models.DateTimeField()),
                ('matched_at', models.DateTimeField()),
                ('stable_label', models.CharField(blank=True, default='', max_length=255)),
                ('stable_confidence', models.FloatField(blank=True, null=True)),
                ('canary_label', models.CharField(blank=True, default='', max_length=255)),
                ('canary_confidence', models.FloatField(blank=True, null=True)),
                ('agreed', models.BooleanField(blank=True, null=True)),
                ('iou', models.FloatField(blank=True, null=True)),
                ('cosine', models.FloatField(blank=True, null=True)),
                ('inclusion_probability', models.FloatField()),
                ('image', models.TextField(blank=True, default='')),
                ('segment', models.JSONField(default=dict)),
                ('truth', models.CharField(blank=True, default='', max_length=255)),
                ('truth_at', models.DateTimeField(blank=True, null=True)),
                ('routed_at', models.DateTimeField(blank=True, null=True)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='shadow_pairs', to='controlplane.modelversion')),
                ('stable', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='controlplane.modelversion')),
            ],
            options={
                'indexes': [
                    models.Index(fields=['version', 'stable', 'at'], name='shadow_pair_by_request'),
                    models.Index(fields=['version', 'stable', 'matched_at'], name='shadow_pair_by_match'),
                    models.Index(condition=models.Q(('agreed', False), ('routed_at__isnull', True)), fields=['id'], name='shadow_pair_unrouted'),
                ],
                'constraints': [
                    models.UniqueConstraint(fields=('version', 'request_id'), name='one_shadow_pair_per_request'),
                    models.CheckConstraint(condition=models.Q(('inclusion_probability__gt', 0), ('inclusion_probability__lte', 1)), name='shadow_pair_probability_in_0_1'),
                ],
            },
        ),
    ]
